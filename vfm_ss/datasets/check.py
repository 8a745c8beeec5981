"""Checks of a data set: a cheap one before every training, and all files on request."""

import posixpath
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import mmengine.fileio as fileio
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich.progress import track

from .transforms.decode import decode_image, decode_label, read_header
from .transforms.labels import label_table, map_label

PROBES = 8


def probe_labels(dataset, count: int = PROBES) -> None:
    """Read a few labels, spread over a data set, as training and evaluation will.

    Raises:
        ValueError: If one is damaged or holds values outside the classes.
    """
    for index in _spread(dataset, count):
        info = dataset.get_data_info(index)
        if info.get("seg_map_path"):
            _read_label(info, dataset)


def _spread(dataset, count: int) -> list[int]:
    return np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()


def _read_label(info: dict, dataset) -> np.ndarray:
    path = info["seg_map_path"]
    label = decode_label(fileio.get(path, dataset.backend_args), path)
    return map_label(label, label_table(info, dataset.ignore_index), path)


@dataclass
class Report:
    """What a check found.

    Attributes:
        found: Number of samples.
        published: Published number of samples, None where it is not known.
        read: Number of samples whose files were read.
        notes: For each kind of thing worth knowing, the files.
        problems: One line for each file that cannot be used.
    """

    found: int
    published: int | None
    read: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that was published is there and all that was read can be used."""
        return not self.problems and self.published in (None, self.found)


def published_count(dataset) -> int | None:
    """Return the published number of samples of a dataset's split."""
    place = dataset.ann_file or dataset.data_prefix["img_path"]
    counts = getattr(dataset, "PUBLISHED", {})
    return next((count for end, count in counts.items() if place.endswith(end)), None)


def check_sample(dataset, index: int) -> tuple[str, str] | None:
    """Read one image and its label.

    Returns:
        None for a good pair; else what is worth saying and about which file, 'problem' with a
        whole line for a file that cannot be used.
    """
    info = dataset.get_data_info(index)
    path, label_path = info["img_path"], info.get("seg_map_path")
    try:
        data = fileio.get(path, dataset.backend_args)
        size = decode_image(data, path).shape[:2]
        if size != read_header(data, path)[:2]:
            raise ValueError(f"{path}: the header gives another size than the data: damaged")
        if not label_path:
            return None
        label = _read_label(info, dataset)
        if label.shape != size and not info.get("resize_label"):
            raise ValueError(
                f"{label_path}: {label.shape[1]} x {label.shape[0]} pixels, its image has "
                f"{size[1]} x {size[0]}; they are not a pair"
            )
    except (ValueError, OSError) as error:
        return "problem", str(error)
    if (label == dataset.ignore_index).all():
        return "labels without a valid pixel, never used in training", label_path
    return None if label.shape == size else ("labels resized to their image", label_path)


def check_dataset(dataset, indices: Iterable[int], workers: int = 0, title: str = "") -> Report:
    """Read the files of a dataset, with a progress bar.

    Args:
        dataset: A dataset of vfm_ss.
        indices: Which samples to read.
        workers: Number of processes; 0 reads in this one.
        title: Shown before the bar.

    Returns:
        The report; files that cannot be used are lines in it, not exceptions.
    """
    report = Report(len(dataset), published_count(dataset))
    indices = list(indices)
    with ExitStack() as stack:
        if workers:
            pool = ProcessPoolExecutor(workers, initializer=_share, initargs=(dataset,))
            stack.callback(pool.shutdown, cancel_futures=True)  # Ctrl-C does not wait for the rest
            results = pool.map(_check_shared, indices, chunksize=8)
        else:
            results = (check_sample(dataset, index) for index in indices)
        for result in track(results, title, total=len(indices)):
            report.read += 1
            if result is not None:
                kind, text = result
                lines = report.problems if kind == "problem" else report.notes.setdefault(kind, [])
                lines.append(text)
    return report


def _share(dataset) -> None:
    global _shared
    _shared = dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle


def _check_shared(index: int) -> tuple[str, str] | None:
    return check_sample(_shared, index)


def describe(title: str, dataset, report: Report) -> str:
    """Write a report as text."""
    wanted = "" if report.published is None else f" (published: {report.published})"
    lines = [
        f"{title}: {type(dataset).__name__} in {dataset.data_root}",
        f"  {report.found} samples{wanted}, {report.read} read",
    ]
    for kind, paths in report.notes.items():
        names = ", ".join(map(posixpath.basename, paths[:3]))
        lines.append(f"  {len(paths)} {kind}: {names}{' ...' if len(paths) > 3 else ''}")
    if report.published not in (None, report.found):
        lines.append(
            f"  INCOMPLETE: {report.found} of {report.published} samples, get {dataset.DOWNLOAD}"
        )
    lines += [f"  UNUSABLE: {problem}" for problem in report.problems]
    return "\n".join(lines)


def check_config(
    path: str, options: dict | None = None, quick: bool = False, workers: int = 0
) -> int:
    """Check all data of a config and print what is found.

    Args:
        path: Config file.
        options: Overrides of the config, with dots in the keys.
        quick: Read a few files of each data set only.
        workers: Number of processes that read.

    Returns:
        0 where everything is complete and usable, else 1.
    """
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    init_default_scope(cfg.get("default_scope", "mmseg"))
    good, seen = True, []
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        if loader is None or loader.dataset in seen:
            continue
        seen.append(loader.dataset)
        try:
            dataset = _build(loader.dataset)
        except (ValueError, OSError) as error:
            print(f"{split}: UNUSABLE: {error}", file=sys.stderr)
            good = False
            continue
        indices = _spread(dataset, PROBES) if quick else range(len(dataset))
        report = check_dataset(dataset, indices, workers, split)
        print(describe(split, dataset, report))
        good &= report.good
    print("data: complete and usable" if good else "data: not complete or not usable")
    return 0 if good else 1


def _build(cfg: dict):
    """Build a dataset; ours without its own look at the labels, which stops at the first."""
    ours = hasattr(DATASETS.get(cfg["type"]), "PUBLISHED")
    return DATASETS.build({**cfg, "probe": False} if ours else cfg)

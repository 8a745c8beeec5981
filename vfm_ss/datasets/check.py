"""Check all files of a config's data sets: complete, usable, and every class with pixels."""

import posixpath
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from prettytable import PrettyTable
from rich.progress import track

from vfm_ss.config_file import read_config

from .eval_data import eval_items, eval_loader, refuse_other_classes, without_files
from .fraction import build_dataset
from .probe import (
    PROBES,
    Pair,
    class_names,
    image_paths,
    parts,
    quoted,
    read_pair,
    refuse_moved_classes,
    spread,
    without_probe,
)
from .transforms.labels import label_table, stored_values


@dataclass
class Report:
    """What a check found.

    Attributes:
        found: Number of samples.
        published: Published number of samples, None where it is not known.
        classes: Names of the classes.
        read: Number of samples whose files were read.
        labels: Number of labels among them.
        notes: For each kind of thing worth knowing, the files.
        problems: One line for each file that cannot be used.
        images: Number of images that hold each class.
        pixels: Number of pixels of each class.
    """

    found: int
    published: int | None
    classes: list[str]
    read: int = 0
    labels: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    images: np.ndarray = None
    pixels: np.ndarray = None

    def __post_init__(self) -> None:
        """Start counting at zero."""
        self.images, self.pixels = np.zeros((2, len(self.classes)), np.int64)

    @property
    def good(self) -> bool:
        """Whether all that was published is there and all that was read can be used."""
        return not self.problems and self.published in (None, self.found)

    def add(self, pair: Pair | str) -> None:
        """Add what was read of one sample, or why it cannot be used."""
        self.read += 1
        if isinstance(pair, str):
            self.problems.append(pair)
            return
        for note, path in pair.notes:
            self.notes.setdefault(note, []).append(path)
        if pair.pixels is not None:
            self.labels += 1
            self.images += pair.pixels > 0
            self.pixels += pair.pixels

    def __iadd__(self, other: "Report") -> "Report":
        """Add the counts of another part of the same split."""
        self.labels += other.labels
        self.images += other.images
        self.pixels += other.pixels
        return self


def check_dataset(dataset, indices: Iterable[int], workers: int = 0, title: str = "") -> Report:
    """Read the files of a dataset, with a progress bar.

    Args:
        dataset: A dataset of vfm_ss or mmseg.
        indices: Which samples to read.
        workers: Number of processes; 0 reads in this one.
        title: Shown before the bar.

    Returns:
        The report; files that cannot be used are lines in it, not exceptions.
    """
    found = getattr(dataset, "whole", len(dataset))  # before a fraction was taken
    report = Report(found, getattr(dataset, "published", None), class_names(dataset))
    for note in getattr(dataset, "notes", ()):
        report.notes[note] = []
    indices = list(indices)
    with ExitStack() as stack:
        if workers:
            pool = ProcessPoolExecutor(workers, initializer=_share, initargs=(dataset,))
            stack.callback(pool.shutdown, cancel_futures=True)  # Ctrl-C does not wait for the rest
            results = pool.map(_check_shared, indices, chunksize=8)
        else:
            results = (_check_sample(dataset, index) for index in indices)
        for result in track(results, title, total=len(indices)):
            report.add(result)
    return report


def _check_sample(dataset, index: int) -> Pair | str:
    try:
        return read_pair(dataset, index)
    except (ValueError, OSError) as error:
        return str(error)


def _share(dataset) -> None:
    global _shared
    _shared = dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle


def _check_shared(index: int) -> Pair | str:
    return _check_sample(_shared, index)


def describe(title: str, dataset, report: Report) -> str:
    """Write a report as text."""
    wanted = "" if report.published is None else f" (published: {report.published})"
    lines = [
        f"{title}: {type(dataset).__name__} in {dataset.data_root}",
        f"  {report.found} samples{wanted}, {report.read} read",
    ]
    for kind, paths in report.notes.items():
        names = ", ".join(map(posixpath.basename, paths[:3]))
        more = " ..." if len(paths) > 3 else ""
        lines.append(f"  {len(paths)} {kind}: {names}{more}" if paths else f"  {kind}")
    if report.published not in (None, report.found):
        lines.append(
            f"  INCOMPLETE: {report.found} of {report.published} samples, get {dataset.DOWNLOAD}"
        )
    lines += [f"  UNUSABLE: {problem}" for problem in report.problems]
    return "\n".join(lines)


def describe_classes(dataset, report: Report) -> str:
    """Write a table of the classes: stored values, and the images and pixels that hold them."""
    table = PrettyTable(["Class", "Stored as", "Images", "Pixels"], align="r")
    table.align["Class"] = "l"
    values = stored_values(
        label_table(dataset.get_data_info(0), dataset.ignore_index), len(report.classes)
    )
    for name, stored, images, pixels in zip(
        report.classes, values, report.images, report.pixels, strict=True
    ):
        table.add_row([name, ", ".join(map(str, stored)) or "nothing", images, pixels])
    return table.get_string()


def judge_classes(report: Report, train: bool, lost: Iterable[str] = ()) -> str | None:
    """Return what is wrong with the classes of a whole split, None where nothing is.

    Training needs pixels of every class. Evaluation needs two classes: one without a pixel is left
    out of the mean, as the table says.

    Args:
        report: The report.
        train: Whether it is of the training set.
        lost: Classes that a fraction does not hold, which has been said and is no fault.
    """
    missing = np.array(report.classes)[report.pixels == 0]
    found = len(report.classes) - len(missing)
    missing = [name for name in missing if name not in lost]
    if found < min(2, len(report.classes)):
        return f"pixels of {quoted(np.array(report.classes)[report.pixels > 0])} only"
    return f"no pixel of {quoted(missing)}" if train and len(missing) else None


def check_config(
    path: str, options: dict | None = None, quick: bool = False, workers: int = 0
) -> int:
    """Check all data of a config and print what is found.

    Args:
        path: Config file.
        options: Overrides of the config, with dots in the keys.
        quick: Read a few files of each data set only; nothing is said of classes without pixels.
        workers: Number of processes that read.

    Returns:
        0 where everything is complete and usable, and nothing is evaluated that was trained on,
        else 1.

    Raises:
        ValueError: If the config cannot be read, or names no data.
    """
    cfg = read_config(path, options)
    init_default_scope(cfg.get("default_scope", "mmseg"))
    good, seen, trained, learnt = True, [], set(), None
    for split, loader in _loaders(cfg):
        if isinstance(loader, Exception):
            print(f"{split}: UNUSABLE: {loader}", file=sys.stderr)
            good = False
            continue
        if loader is None or loader.dataset in seen:
            continue
        seen.append(loader.dataset)
        try:
            dataset = build_dataset(without_probe(loader.dataset))
            if split not in ("train", "val", "test"):
                refuse_other_classes(without_files(cfg.val_dataloader.dataset), dataset, split)
            elif learnt is not None:
                note = refuse_moved_classes(learnt, class_names(dataset), split)
                if note is not None:
                    print(note)
        except (ValueError, OSError) as error:
            print(f"{split}: UNUSABLE: {error}", file=sys.stderr)
            good = False
            continue
        good &= _check_split(split, dataset, quick, workers)
        images = image_paths(dataset)
        if split == "train":
            trained, learnt = images, class_names(dataset)
        elif both := sorted(images & trained):
            print(f"  UNUSABLE: {len(both)} images of {split} are in train, too: {both[0]}, ...")
            good = False
    if good and not seen:
        raise ValueError(
            f"config {path} has no train_dataloader, val_dataloader or test_dataloader, so there "
            "is nothing to check"
        )
    if not good:
        print("data: not complete or not usable")
    elif quick:
        print("data: usable as far as it was read; without --quick classes are judged, too")
    else:
        print("data: complete and usable")
    return 0 if good else 1


def _loaders(cfg: Config) -> list[tuple[str, dict | Exception | None]]:
    """Return the loaders of a config by what they are for, those of ``eval_data`` by its names."""
    loaders = [(split, cfg.get(f"{split}_dataloader")) for split in ("train", "val", "test")]
    for item in eval_items(cfg):
        try:
            loaders.append((item, eval_loader(cfg, item)))
        except (ValueError, OSError) as error:
            loaders.append((item, error))
    return loaders


def _check_split(split: str, dataset, quick: bool, workers: int) -> bool:
    subset = getattr(dataset, "subset", None)
    if subset is not None:
        print(f"{split}: {subset.loss or subset}")
    datasets = parts(dataset)
    total = Report(0, None, class_names(datasets[0]))
    good = True
    for dataset in datasets:
        indices = spread(len(dataset), PROBES) if quick else range(len(dataset))
        report = check_dataset(dataset, indices, workers, split)
        print(describe(split, dataset, report))
        total += report
        good &= report.good
        if split == "train" and len(datasets) > 1 and report.labels and not report.pixels.any():
            print("  UNUSABLE: no label of this part has a valid pixel; leave it out")
            good = False
    if not total.labels:
        return good
    if datasets[0].metainfo.get("classes"):
        print(describe_classes(datasets[0], total))
    wrong = None if quick else judge_classes(total, split == "train", subset.lost if subset else ())
    if wrong is not None:
        print(
            f"  UNUSABLE: {split} has {wrong}; if the labels hold more, correct stored_ids (stored "
            "value -> class), reduce_zero_label or classes of the dataset"
        )
    return good and wrong is None

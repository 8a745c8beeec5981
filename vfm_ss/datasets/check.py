"""Checks of a data set: a cheap one before every training, and all files on request."""

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import mmengine.fileio as fileio
import numpy as np

from .transforms.decode import decode_image, decode_label, read_header
from .transforms.labels import label_table, map_label

PROBES = 8


def probe_labels(dataset, count: int = PROBES) -> None:
    """Read a few labels, spread over a data set, as training and evaluation will.

    Raises:
        ValueError: If one is damaged or holds values outside the classes.
    """
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        info = dataset.get_data_info(int(index))
        if info.get("seg_map_path"):
            _read_label(info, dataset)


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
        empty: Labels without a valid pixel, which training passes over.
        resized: Labels of another size than their image, which are resized.
        problems: One line for each file that cannot be used.
    """

    found: int
    published: int | None
    read: int = 0
    empty: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def published_count(dataset) -> int | None:
    """Return the published number of samples of a dataset's split."""
    place = dataset.ann_file or dataset.data_prefix["img_path"]
    matches = [n for end, n in getattr(dataset, "PUBLISHED", {}).items() if place.endswith(end)]
    return matches[0] if matches else None


def check_dataset(
    dataset, indices: Iterable[int], progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Report:
    """Read the files of a dataset.

    Args:
        dataset: A dataset of vfm_ss.
        indices: Which samples to read.
        progress: Wraps the indices, to show a bar.

    Returns:
        The report; files that cannot be used are lines in it, not exceptions.
    """
    report = Report(len(dataset), published_count(dataset))
    for index in progress(indices):
        info = dataset.get_data_info(int(index))
        report.read += 1
        try:
            data = fileio.get(info["img_path"], dataset.backend_args)
            size = decode_image(data, info["img_path"]).shape[:2]
            if size != read_header(data, info["img_path"])[:2]:
                raise ValueError(f"{info['img_path']}: the header gives another size than the data")
            if not info.get("seg_map_path"):
                continue
            label = _read_label(info, dataset)
            if label.shape != size:
                if not info.get("resize_label"):
                    raise ValueError(
                        f"{info['seg_map_path']}: {label.shape[1]} x {label.shape[0]} pixels, its "
                        f"image has {size[1]} x {size[0]}; they are not a pair"
                    )
                report.resized.append(info["seg_map_path"])
            if (label == dataset.ignore_index).all():
                report.empty.append(info["seg_map_path"])
        except (ValueError, OSError) as error:
            report.problems.append(str(error))
    return report


def describe(name: str, dataset, report: Report) -> str:
    """Write a report as text, most important lines last."""
    lines = [f"{name}: {type(dataset).__name__} in {dataset.data_root}"]
    wanted = "" if report.published is None else f" (published: {report.published})"
    lines.append(f"  {report.found} samples{wanted}, {report.read} read")
    for what, paths in (
        ("labels without a valid pixel, passed over in training", report.empty),
        ("labels resized to their image", report.resized),
    ):
        if paths:
            shown = ", ".join(posixpath.basename(path) for path in paths[:3])
            lines.append(f"  {len(paths)} {what}: {shown}{' ...' if len(paths) > 3 else ''}")
    if report.published not in (None, report.found):
        lines.append(f"  INCOMPLETE: {report.found} of {report.published} samples")
    lines += [f"  UNUSABLE: {problem}" for problem in report.problems]
    return "\n".join(lines)

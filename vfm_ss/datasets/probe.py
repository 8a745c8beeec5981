"""Read a few files of a data set before training, as training and evaluation will read them."""

import logging
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import mmengine.fileio as fileio
import numpy as np
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .transforms.decode import decode_image, decode_label, orientation, read_header
from .transforms.labels import OutsideClassesError, check_pair, label_table, map_label

#: Pairs that are always read, and labels that are read while classes are still missing.
PROBES = 8
CLASS_PROBES = 64


@dataclass
class Pair:
    """What one image and its label hold.

    Attributes:
        stored: Pixels of each stored value of the label, (256,) int64; None without a label.
        pixels: Pixels of each class.
        notes: What is worth saying, and of which file.
    """

    stored: np.ndarray | None = None
    pixels: np.ndarray | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)


def parts(dataset) -> list:
    """Return the datasets in ConcatDataset, RepeatDataset and other wrappers."""
    if hasattr(dataset, "datasets"):
        return [part for inner in dataset.datasets for part in parts(inner)]
    return parts(dataset.dataset) if hasattr(dataset, "dataset") else [dataset]


def class_names(dataset) -> list[str]:
    """Return the names of a dataset's classes; numbers where it names none."""
    names = dataset.metainfo.get("classes")
    return list(names) if names else [str(k) for k in range(254)]


def refuse_moved_classes(trained: Sequence[str], evaluated: Sequence[str], what: str) -> str | None:
    """Compare the classes that a model learns with those that its predictions are counted as.

    Args:
        trained: Names of the classes by number.
        evaluated: Those of the data set that it is evaluated on.
        what: What holds them, for the message.

    Returns:
        A warning where names differ in their writing at most; None where they are the same.

    Raises:
        ValueError: If there are more or fewer classes, or one has another number: scores would
            compare different classes.
    """
    names, others = list(map(str, trained)), list(map(str, evaluated))
    if names == others:
        return None
    if len(names) != len(others):
        raise ValueError(
            f"{what} has {len(others)} classes, but {len(names)} are trained; give both data sets "
            "the same classes"
        )
    k = next(k for k, pair in enumerate(zip(names, others, strict=True)) if pair[0] != pair[1])
    told = f"class {k} is {others[k]!r} in {what}, but {names[k]!r} in training"
    if any(name in names and names[j] != name for j, name in enumerate(others)):
        raise ValueError(
            f"{told}: the classes have other numbers, and the score would compare different "
            f"classes; give both data sets the classes in one order (FolderDataset: order={names})"
        )
    return f"{told}; they are taken to be the same"


def without_probe(cfg: Mapping) -> dict:
    """Return a config with which our datasets, also in wrappers, do not look at files themselves.

    Args:
        cfg: Config of a dataset.
    """
    cfg = dict(cfg)
    if hasattr(DATASETS.get(cfg["type"]), "PUBLISHED"):
        cfg["probe"] = False
    if isinstance(cfg.get("dataset"), Mapping):
        cfg["dataset"] = without_probe(cfg["dataset"])
    if cfg.get("datasets"):
        cfg["datasets"] = [without_probe(part) for part in cfg["datasets"]]
    return cfg


def image_paths(dataset) -> set[str]:
    """Return the paths of a dataset's images, also of one in wrappers; empty where it has none."""
    found = set()
    for part in parts(dataset):
        for index in range(len(part)):
            found.add(part.get_data_info(index).get("img_path"))
    return found - {None}


def image_folders(dataset) -> list[str]:
    """Return the folders that a dataset's images lie in."""
    if hasattr(dataset, "folders"):
        return [images.rstrip("/") for images, _ in dataset.folders()]
    return [(dataset.data_prefix.get("img_path") or dataset.data_root or "").rstrip("/")]


def read_pair(dataset, index: int, image: bool = True) -> Pair:
    """Read a label and, unless told otherwise, its image.

    Raises:
        ValueError: If one cannot be used, or they are not a pair; the message names the file.
        OSError: If one cannot be read.
    """
    info = dataset.get_data_info(index)
    if dataset.metainfo.get("classes"):
        info.setdefault("num_classes", len(class_names(dataset)))  # mmseg's do not say
    path, label_path = info["img_path"], info.get("seg_map_path")
    pair, size = Pair(), None
    if image:
        data = fileio.get(path, dataset.backend_args)
        size = decode_image(data, path, bit_depth=info.get("bit_depth", 8)).shape[:2]
        if size != read_header(data, path)[:2]:
            raise ValueError(f"{path}: the header gives another size than the data: damaged")
        if orientation(data) != 1:
            pair.notes.append(
                ("images read as stored, though their EXIF orientation turns them", path)
            )
    if label_path is None:
        return pair
    label = decode_label(fileio.get(label_path, dataset.backend_args), label_path)
    table = label_table(info, dataset.ignore_index)
    map_label(label, table, label_path)
    pair.stored = np.bincount(label.ravel(), minlength=256)
    pair.pixels = np.zeros(256, np.int64)
    np.add.at(pair.pixels, table, pair.stored)
    pair.pixels = pair.pixels[: len(class_names(dataset))]
    if dataset.ignore_index < len(pair.pixels):
        pair.pixels[dataset.ignore_index] = 0
    if size not in (None, label.shape):
        check_pair(info, label.shape, size, dataset.backend_args)
        pair.notes.append(("labels resized to their image", label_path))
    if not pair.pixels.any():
        pair.notes.append(("labels without a valid pixel, never used in training", label_path))
    return pair


def spread(length: int, count: int) -> list[int]:
    """Return at most `count` different indices, spread over a data set."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int)).tolist()


def _probe_order(length: int) -> Iterator[int]:
    """Yield all indices, first a few that are spread over the data set."""
    done = set()
    for count in (PROBES, CLASS_PROBES, length):
        fresh = [index for index in spread(length, count) if index not in done]
        done.update(fresh)
        yield from fresh


def probe(dataset) -> None:
    """Read a few pairs, and labels until they hold every class or enough are read.

    Classes without a pixel in what was read are a warning. A training set needs two classes: its
    labels are read on until they hold two.

    Raises:
        ValueError: If a file cannot be used, or all labels of a training set hold fewer than two
            classes.
    """
    wrong = _probe([dataset])
    if wrong is not None:
        raise ValueError(
            f"{wrong}; set stored_ids (stored value -> class), reduce_zero_label or classes of the "
            "dataset, or probe=False if this is meant"
        )


def probe_others(dataset) -> None:
    """Probe the parts of a training set that do not probe themselves: mmseg's own classes.

    They are judged together. Where a transform of the user's may change labels, or a file can only
    be read by the loaders of the pipeline, what is found is a warning.

    Raises:
        ValueError: As `probe`.
    """
    others = [
        part for part in parts(dataset) if isinstance(part, BaseSegDataset) and not _probes(part)
    ]
    if not others:
        return
    steps = [step for part in others for step in part.pipeline.transforms]
    known = {type(step).__module__.split(".")[0] for step in steps} <= {"mmcv", "mmseg", "vfm_ss"}
    try:
        wrong = _probe(others)
    except (ValueError, OSError) as error:
        if known and isinstance(error, OutsideClassesError):
            raise
        wrong, known = f"the check of the labels ended at a file: {error}", False
    if wrong is None:
        return
    remedy = (
        "read them by FolderDataset, whose classes say what each stored value is, or correct "
        "reduce_zero_label or classes of the dataset"
    )
    if known and len(others) == len(parts(dataset)):
        raise ValueError(f"{wrong}; {remedy}")
    print_log(f"{wrong}; if labels are read wrongly, {remedy}", "current", logging.WARNING)


def _probes(dataset) -> bool:
    return hasattr(dataset, "PUBLISHED")


def _probe(datasets: list) -> str | None:
    """Read a few pairs of data sets of the same classes; return what training cannot do with."""
    names = class_names(datasets[0])
    samples = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    stored, pixels = np.zeros(256, np.int64), np.zeros(len(names), np.int64)
    needed = 0 if datasets[0].test_mode else min(2, len(names))
    labels, path = 0, None
    for read, sample in enumerate(_probe_order(len(samples)), 1):
        dataset, index = samples[sample]
        pair = read_pair(dataset, index, image=read <= PROBES)
        if pair.pixels is not None:
            labels += 1
            stored += pair.stored
            pixels += pair.pixels
            path = dataset.get_data_info(index)["seg_map_path"]
        found = np.count_nonzero(pixels)
        if read >= PROBES and (not labels or found == len(names)):
            break
        if read >= CLASS_PROBES and found >= needed:
            break
    if labels and found < needed:
        return (
            f"{posixpath.dirname(path)}: the {labels} labels hold pixels of "
            f"{quoted(np.array(names)[pixels > 0])}, training needs two classes (stored values: "
            f"{_stored(datasets[0], stored, names)})"
        )
    if labels and datasets[0].metainfo.get("classes") and found < len(names):
        print_log(
            f"{posixpath.dirname(path)}: {labels} labels of {len(samples)} were read and "
            f"{len(names) - found} of {len(names)} classes have no pixel in them: "
            f"{quoted(np.array(names)[pixels == 0])}; tools/check_data.py counts all",
            logger="current",
            level=logging.WARNING,
        )
    return None


def quoted(names, most: int = 5) -> str:
    """List names, but not more than `most` of them."""
    names = [repr(str(name)) for name in names]
    if len(names) > most:
        names[most - 1 :] = [f"{len(names) - most + 1} more"]
    return ", ".join(names) or "no class"


def _stored(dataset, stored: np.ndarray, names: list[str]) -> str:
    table = label_table(dataset.get_data_info(0), dataset.ignore_index)
    values = np.flatnonzero(stored)
    words = [
        f"{value} ({'ignored' if table[value] == dataset.ignore_index else names[table[value]]})"
        for value in values[:8]
    ]
    return ", ".join(words) + (", ..." if len(values) > 8 else "")

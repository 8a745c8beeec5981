"""Which classes every label of a data set holds: read once, then kept in the user's cache."""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from vfm_ss.files import write_atomically

from .probe import class_names, read_pair
from .storage import stamp
from .transforms.labels import label_table

_FORMAT = 1
_MOST_THREADS = 8


def class_presence(datasets: Sequence) -> np.ndarray:
    """Return which classes the labels hold.

    Labels are decoded once: what they hold is kept in the user's cache, under a checksum of their
    names, their sizes, their times of change (or checksums, in a zip) and how they are read. Labels
    on a remote store are read every time.

    Args:
        datasets: Data sets of vfm_ss or mmseg with the same classes.

    Returns:
        (N, classes) bool, for all samples one after another.

    Raises:
        ValueError: If a sample has no label, or one cannot be used; the message names the file.
        OSError: If one cannot be read.
    """
    return np.concatenate([_of_one(dataset) for dataset in datasets])


def cache_folder() -> Path:
    """Return the folder in which this is kept; ``XDG_CACHE_HOME`` moves it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "vfm_ss", "class_presence")


def _of_one(dataset) -> np.ndarray:
    shape = len(dataset), len(class_names(dataset))
    key = _key(dataset)
    path = None if key is None else cache_folder() / f"{key}.npy"
    found = None if path is None else _read(path, shape)
    if found is None:
        print_log(
            f"{dataset.data_root}: reading {len(dataset)} labels, to choose a fraction that holds "
            "every class",
            logger="current",
        )
        found = _from_labels(dataset, shape)
        if path is not None:
            _write(path, found)
    return found


def _from_labels(dataset, shape: tuple[int, int]) -> np.ndarray:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = np.zeros(shape, bool)
    with ThreadPoolExecutor(min(_MOST_THREADS, cores or 1)) as pool:
        pairs = pool.map(lambda index: read_pair(dataset, index, image=False), range(shape[0]))
        try:
            for index, pair in enumerate(pairs):
                if pair.pixels is None:
                    path = dataset.get_data_info(index)["img_path"]
                    raise ValueError(f"{path} has no label, so no fraction can be chosen by class")
                found[index] = pair.pixels > 0
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _key(dataset) -> str | None:
    """Return a checksum of all that the answer depends on; None where a file does not tell."""
    text = hashlib.sha256(f"{_FORMAT} {len(class_names(dataset))} {dataset.ignore_index}".encode())
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = info.get("seg_map_path")
        mark = None if path is None else stamp(path)
        if mark is None:
            return None
        if index == 0:
            text.update(label_table(info, dataset.ignore_index).tobytes())
        text.update(f"\n{path} {mark}".encode("utf-8", "surrogateescape"))
    return text.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        bits = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    width = -(-shape[1] // 8)
    if bits.dtype != np.uint8 or bits.shape != (shape[0], width):
        return None
    return np.unpackbits(bits, axis=1, count=shape[1]).astype(bool)


def _write(path: Path, found: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(found, axis=1), allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        print_log(f"{path} cannot be written ({error}): labels are read again", logger="current")

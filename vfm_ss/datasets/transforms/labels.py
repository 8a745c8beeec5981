"""Map stored label values to class indices through one lookup table."""

from functools import lru_cache
from numbers import Integral

import cv2
import mmengine.fileio as fileio
import numpy as np

from .decode import orientation

# Marks table entries that no label may hold. Class indices end below it.
ILLEGAL = 254


class OutsideClassesError(ValueError):
    """A label holds a value that its dataset does not define, whoever reads it."""


@lru_cache(maxsize=16)
def _table(
    num_classes: int | None,
    reduce_zero_label: bool,
    label_map: tuple[tuple[int, int], ...] | None,
    ignore_index: int,
    stated_only: bool = False,
) -> np.ndarray:
    table = np.full(256, ILLEGAL, np.uint8)
    known = {} if label_map is None else _checked(label_map, num_classes, ignore_index)
    for value in range(256):
        reduced = value
        if reduce_zero_label:  # as mmseg: 0 is ignored and 255 stays
            reduced = 255 if value in (0, 255) else value - 1
        if reduced in known and not (reduce_zero_label and value == 0):
            table[value] = known[reduced]
        elif reduced in (255, ignore_index) and not stated_only:
            table[value] = ignore_index
        elif label_map is None and (num_classes is None or reduced < num_classes):
            table[value] = reduced
    return table


def _checked(
    label_map: tuple[tuple[int, int], ...], num_classes: int | None, ignore_index: int
) -> dict[int, int]:
    """Return a map from 8-bit values to classes or `ignore_index`, for which it may say 255."""
    known = {value: ignore_index if k == 255 else k for value, k in label_map}
    end = ILLEGAL if num_classes is None else num_classes
    for value, k in known.items():
        if not isinstance(value, Integral) or not 0 <= value <= 255:
            raise ValueError(f"the label map has the value {value!r}, labels hold 0 to 255")
        if not isinstance(k, Integral) or not (0 <= k < end or k == ignore_index):
            raise ValueError(
                f"the label map sends {value} to {k!r}, which is neither a class (0 to {end - 1}) "
                "nor 255 (ignored)"
            )
    return known


def label_table(results: dict, ignore_index: int = 255) -> np.ndarray:
    """Return the table from stored values to classes for a sample of a mmseg dataset.

    Args:
        results: The sample. `reduce_zero_label` and `label_map` mean what they mean in mmseg;
            `num_classes`, where the dataset gives it, bounds the values. A value that `label_map`
            names is what it says, also 255 and `ignore_index`, which are ignored otherwise, unless
            `stated_only` is true.
        ignore_index: Class index of pixels that do not count.

    Returns:
        (256,) uint8; values that the dataset does not define hold ILLEGAL.

    Raises:
        ValueError: If `label_map` names what is no stored value or no class.
    """
    label_map = results.get("label_map")
    return _table(
        results.get("num_classes"),
        bool(results.get("reduce_zero_label", False)),
        None if label_map is None else tuple(label_map.items()),
        ignore_index,
        bool(results.get("stated_only", False)),
    )


def stored_values(table: np.ndarray, num_classes: int) -> list[list[int]]:
    """Return the stored values of each class: the inverse of a table of `label_table`."""
    return [np.flatnonzero(table == k).tolist() for k in range(num_classes)]


def map_label(label: np.ndarray, table: np.ndarray, name: str) -> np.ndarray:
    """Apply a table of `label_table`.

    Args:
        label: (H, W) uint8 stored values.
        table: (256,) uint8.
        name: Path of the file, for errors.

    Raises:
        OutsideClassesError: If a pixel holds a value that the dataset does not define.
    """
    mapped = cv2.LUT(np.ascontiguousarray(label), table)
    wrong = mapped == ILLEGAL
    if wrong.any():
        values = np.unique(label[wrong])[:10].tolist()
        raise OutsideClassesError(
            f"{name}: label values {values} are outside the classes ({_known(table)}); fix the "
            "file, or classes, ignore, stored_ids and reduce_zero_label of the dataset"
        )
    return mapped


def _known(table: np.ndarray) -> str:
    """Say which stored values a table has classes for."""
    values = np.flatnonzero(table < ILLEGAL)
    if not len(values):
        return "there are none"
    first, last = values[0], values[-1]
    if 1 < len(values) == last - first + 1:
        return f"stored as {first} to {last}"
    told = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    return f"stored as {told}"


def check_pair(
    results: dict, label_size: tuple[int, int], image_size: tuple[int, int], backend_args: dict
) -> None:
    """Compare the (height, width) of a label and its image.

    Raises:
        ValueError: If they differ and the dataset does not say `resize_label`.
    """
    if label_size == image_size or results.get("resize_label", False):
        return
    path = results["img_path"]
    turn = orientation(fileio.get(path, backend_args))
    hint = "they are not a pair"
    if turn != 1:
        hint += (
            f", or the label is drawn on the image as its EXIF orientation {turn} turns it, which "
            "is ignored: turn the image's pixels and save it without"
        )
    raise ValueError(
        f"{results['seg_map_path']}: the label is {label_size[1]} x {label_size[0]} pixels, but "
        f"{path} is {image_size[1]} x {image_size[0]}; {hint}"
    )

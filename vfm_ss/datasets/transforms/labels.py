"""Map stored label values to class indices through one lookup table."""

from functools import lru_cache

import cv2
import numpy as np

# Marks table entries that no label may hold. Class indices end below it.
ILLEGAL = 254


@lru_cache(maxsize=16)
def _table(
    num_classes: int | None,
    reduce_zero_label: bool,
    label_map: tuple[tuple[int, int], ...] | None,
    ignore_index: int,
) -> np.ndarray:
    table = np.full(256, ILLEGAL, np.uint8)
    known = None if label_map is None else dict(label_map)
    for value in range(256):
        reduced = value
        if reduce_zero_label:  # as mmseg: 0 is ignored and 255 stays
            reduced = ignore_index if value == 0 else 255 if value == 255 else value - 1
        if reduced in (255, ignore_index):
            table[value] = ignore_index
        elif known is not None:
            table[value] = known.get(reduced, ILLEGAL)
        elif num_classes is None or reduced < num_classes:
            table[value] = reduced
    return table


def label_table(results: dict, ignore_index: int = 255) -> np.ndarray:
    """Return the table from stored values to classes for a sample of a mmseg dataset.

    Args:
        results: The sample. `reduce_zero_label` and `label_map` mean what they mean in mmseg;
            `num_classes`, where the dataset gives it, bounds the values.
        ignore_index: Class index of pixels that do not count.

    Returns:
        (256,) uint8; values that the dataset does not define hold ILLEGAL.
    """
    label_map = results.get("label_map")
    return _table(
        results.get("num_classes"),
        bool(results.get("reduce_zero_label", False)),
        None if label_map is None else tuple(sorted(label_map.items())),
        ignore_index,
    )


def map_label(label: np.ndarray, table: np.ndarray, name: str) -> np.ndarray:
    """Apply a table of `label_table`.

    Args:
        label: (H, W) uint8 stored values.
        table: (256,) uint8.
        name: Path of the file, for errors.

    Raises:
        ValueError: If a pixel holds a value that the dataset does not define.
    """
    mapped = cv2.LUT(np.ascontiguousarray(label), table)
    wrong = mapped == ILLEGAL
    if wrong.any():
        values = np.unique(label[wrong])[:10].tolist()
        classes = np.flatnonzero(table < ILLEGAL)
        stored = f"stored as {classes[0]} to {classes[-1]}" if len(classes) else "there are none"
        raise ValueError(
            f"{name}: label values {values} are outside the classes ({stored}); fix the file, or "
            "classes and reduce_zero_label of the dataset"
        )
    return mapped

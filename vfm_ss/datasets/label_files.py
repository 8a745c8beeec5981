"""Write predicted classes as label files: named as the images, in the values of the data set."""

import logging
import posixpath
from io import BytesIO
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from vfm_ss.files import write_atomically

from .probe import class_names, image_folders, parts
from .transforms.labels import label_table, stored_values


def inverse_table(dataset) -> np.ndarray:
    """Return the stored value of every class: the inverse of how a dataset's labels are read.

    Reading a file of these values gives the classes again. Where several stored values are one
    class, the first of them stands for it, and a warning says so.

    Args:
        dataset: A dataset of vfm_ss or mmseg; it may be lazy (`lazy_init=True`), without its files.

    Returns:
        (number of classes,) uint8.

    Raises:
        ValueError: If no stored value stands for a class.
    """
    names = class_names(dataset)
    values = stored_values(label_table(label_rules(dataset), dataset.ignore_index), len(names))
    absent = [name for name, stored in zip(names, values, strict=True) if not stored]
    if absent:
        raise ValueError(
            f"{dataset.data_root}: no stored value stands for the class {absent[0]!r} "
            f"({len(absent)} such classes), so predictions cannot be saved as labels; correct "
            "stored_ids or classes of the dataset"
        )
    for name, stored in zip(names, values, strict=True):
        if len(stored) > 1:
            print_log(
                f"{dataset.data_root}: {name!r} is stored as {' and '.join(map(str, stored))}; "
                f"predictions of it are saved as {stored[0]}",
                logger="current",
                level=logging.WARNING,
            )
    return np.array([stored[0] for stored in values], np.uint8)


def label_rules(dataset) -> dict:
    """Return what `label_table` needs to know of a dataset."""
    if hasattr(dataset, "label_rules"):
        return dataset.label_rules()
    return dict(label_map=dataset.label_map, reduce_zero_label=dataset.reduce_zero_label)


def plan_label_files(dataset, folder: str | Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Name a label file for every image of a dataset.

    Args:
        dataset: A dataset of vfm_ss or mmseg, or ConcatDataset and the like of them.
        folder: Where the files will be, in the sub-folders that the images have.

    Returns:
        For the path of each image, its label file and the dataset's `inverse_table`.

    Raises:
        ValueError: If a file exists, or two images would have the same.
    """
    plan, taken = {}, {}
    for part in parts(dataset):
        inverse = inverse_table(part)
        roots = image_folders(part)
        for index in range(len(part)):
            image = part.get_data_info(index)["img_path"]
            root = next((r for r in roots if image.startswith(f"{r}/")), posixpath.dirname(image))
            name = posixpath.splitext(image.removeprefix(f"{root}/"))[0] + ".png"
            path = Path(folder, name)
            if taken.setdefault(path, image) != image:
                raise ValueError(
                    f"{path} would be the prediction of {taken[path]} and of {image}; evaluate "
                    "these data sets one at a time"
                )
            if image not in plan and path.exists():
                raise ValueError(f"{path} exists: choose another folder, or delete this one")
            plan[image] = path, inverse
    return plan


def write_label(path: Path, classes: np.ndarray, inverse: np.ndarray) -> None:
    """Write a label file, as a whole or not at all.

    Args:
        path: The file; its folder is made.
        classes: (H, W) predicted classes.
        inverse: See `inverse_table`.
    """
    write_picture(path, Image.fromarray(inverse[classes]))


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, as a whole or not at all; its folder is made."""
    data = BytesIO()
    picture.save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data.getvalue())

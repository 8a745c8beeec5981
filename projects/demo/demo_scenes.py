"""The dataset of the demo: painted scenes in ADE20K's folder layout, made on the spot."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track
from scene_painter import LABELS, OTHER, paint_scene

CLASSES = tuple(LABELS)

# Stands in a finished dataset and says how it was made.
_MARK = "demo_scenes.json"
# Raise it whenever the same seed gives other bytes.
_VERSION = 1


def make_demo_scenes(root: str | Path, num_train: int = 400, num_val: int = 80, seed: int = 0):
    """Make the dataset, unless it has been made.

    ``images/{training,validation}/*.jpg`` hold the pictures, ``annotations/...png`` the label of
    every pixel: 0 for "other", classes from 1. The same arguments give the same bytes. A dataset
    appears under ``root`` as a whole; what an interrupted call leaves beside it is removed.

    Args:
        root: Folder of the dataset.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        seed: Seed of the scenes.

    Raises:
        ValueError: If ``root`` holds something else.
    """
    root = Path(root)
    made_from = {"version": _VERSION, "train": num_train, "val": num_val, "seed": seed}
    if root.exists():
        _check(root, made_from)
        return
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    splits = [("training", num_train), ("validation", num_val)]
    for split, _ in splits:
        (partial / "images" / split).mkdir(parents=True)
        (partial / "annotations" / split).mkdir(parents=True)
    scenes = [(k, split, i) for k, (split, count) in enumerate(splits) for i in range(count)]
    for k, split, i in track(scenes, description="Painting scenes"):
        picture, labels = paint_scene(np.random.default_rng([seed, k, i]))
        name = f"scene_{i:05d}"
        Image.fromarray(picture).save(partial / "images" / split / f"{name}.jpg", quality=92)
        Image.fromarray(labels).save(partial / "annotations" / split / f"{name}.png")
    (partial / _MARK).write_text(json.dumps(made_from) + "\n")
    partial.rename(root)


def constant_miou(annotations: str | Path) -> float:
    """Score the prediction of the most frequent class everywhere.

    Args:
        annotations: Folder of label maps, 0 for what is not evaluated.

    Returns:
        mIoU in percent over the classes that occur.

    Raises:
        FileNotFoundError: If the folder holds no label map.
    """
    pixels = np.zeros(256, np.int64)
    for path in Path(annotations).glob("*.png"):
        pixels += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
    pixels[OTHER] = 0
    if not pixels.any():
        raise FileNotFoundError(f"{annotations} holds no label map with a class")
    # The IoU of that class is its share of the pixels, the IoU of every other class is 0.
    return 100 * pixels.max() / pixels.sum() / np.count_nonzero(pixels)


def _check(root: Path, made_from: dict) -> None:
    try:
        found = json.loads((root / _MARK).read_text())
    except (OSError, ValueError):
        found = None
    if found != made_from:
        raise ValueError(
            f"{root} holds {'other demo scenes' if found else 'something else'} ({found}) instead "
            f"of {made_from}; delete it, or choose another folder"
        )

"""Real images at the size of the network, to compare an exported model with the original on."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

#: A photograph that every installation has.
_SAMPLE = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def find_images(
    cfg: Config, size: tuple[int, int], paths: Sequence[str | Path] = (), count: int = 3
) -> tuple[list[np.ndarray], str]:
    """Return images as the network gets them, before they are normalised.

    Args:
        cfg: Config of the model; its test data are used where they are there and no paths given.
        size: (H, W) of the network's input.
        paths: Image files to use instead.
        count: How many images of the test data.

    Returns:
        Images (3, H, W), uint8, BGR as mmseg reads them, at least ``count``; where they come from.

    Raises:
        ValueError: If a file is no image.
    """
    if paths:
        images, source = [_read(path) for path in paths], "the images given"
    else:
        images, source = _of_test_data(cfg, count)
    cut = [_cover(image, size) for image in images]
    mirrored = [np.ascontiguousarray(image[:, :, ::-1]) for image in cut]
    return (cut + mirrored + cut)[: max(count, len(cut))], source


def _of_test_data(cfg: Config, count: int) -> tuple[list[np.ndarray], str]:
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader")
    try:
        if loader is None:
            raise ValueError("the config has none")
        dataset = DATASETS.build(loader.dataset)
        chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
        images = [dataset[int(k)]["inputs"].permute(1, 2, 0).numpy() for k in chosen]
    except Exception as error:  # whatever a data set of anyone's says where its files are missing
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return [_read(_SAMPLE)], (
            f"matplotlib's sample photograph, as the test data cannot be read ({reason}); "
            "--images names others"
        )
    if any(image.dtype != np.uint8 or image.shape[2] != 3 for image in images):
        raise ValueError(
            "an exported model takes images of three channels in 0 to 255, the test data of this "
            "config have others"
        )
    return images, f"images of {type(dataset).__name__}"


def _read(path: str | Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if Path(path).is_file() else None
    if image is None:
        raise ValueError(f"{path} cannot be read as an image; name a JPEG or PNG file")
    return image


def _cover(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to cover (H, W) and take its middle, as (3, H, W)."""
    scale = max(want / have for want, have in zip(size, image.shape[:2], strict=True))
    if scale != 1:
        height, width = (
            max(round(have * scale), want) for want, have in zip(size, image.shape[:2], strict=True)
        )
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = ((have - want) // 2 for want, have in zip(size, image.shape[:2], strict=True))
    cut = image[top : top + size[0], left : left + size[1]]
    return np.ascontiguousarray(cut.transpose(2, 0, 1))

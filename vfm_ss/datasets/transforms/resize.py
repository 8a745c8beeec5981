"""Resizing: bilinear with anti-aliasing, of a whole image or of the part that a crop needs."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms.base import BaseTransform
from mmseg.registry import TRANSFORMS

from vfm_ss.image_size import ImageSized

# A part starts where its first pixel maps to a whole output pixel, to this many output pixels.
ALIGNMENT = 1 / 64


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly; a side that shrinks is anti-aliased, as in torchvision and Pillow.

    Args:
        image: (H, W, 3) uint8.
        size: Output (height, width).
    """
    if size == image.shape[:2]:
        return image
    return _resize(image, size[0] / image.shape[0], size[1] / image.shape[1], size)


def _resize(image: np.ndarray, fy: float, fx: float, size: tuple[int, int]) -> np.ndarray:
    """Resize by exact factors and give the top left `size` of the result."""
    if (fy, fx) == (1, 1):
        return image[: size[0], : size[1]]
    if fy >= 1 and fx >= 1:
        out = cv2.resize(image, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    else:
        # torch rounds the size of its output down: make sure that `size` is reached.
        factors = [
            max(factor, (wanted + 1e-6) / length)
            for factor, wanted, length in zip((fy, fx), size, image.shape[:2], strict=True)
        ]
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        out = F.interpolate(tensor, scale_factor=factors, mode="bilinear", antialias=True)
        out = out[0].permute(1, 2, 0).numpy()
    return out[: size[0], : size[1]]


def resize_part(
    image: np.ndarray,
    factors: tuple[float, float],
    top: int,
    left: int,
    size: tuple[int, int],
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Resize only what a crop needs.

    Equal to resizing the whole image by `factors` and taking `size` pixels from (top, left), up to
    ALIGNMENT output pixels.

    Args:
        image: (H, W, 3) uint8.
        factors: Vertical and horizontal factor.
        top: First row of the crop in the resized image.
        left: First column of the crop.
        size: (height, width) of the crop.
        prepare: Applied to the source pixels before they are resized.
    """
    (y0, y1, dy), (x0, x1, dx) = (
        _aligned_span(*axis)
        for axis in zip(image.shape[:2], factors, (top, left), size, strict=True)
    )
    part = image[y0:y1, x0:x1]
    if prepare is not None:
        part = prepare(part)
    part = _resize(part, *factors, (dy + size[0], dx + size[1]))
    return part[dy:, dx:]


def _aligned_span(length: int, factor: float, first: int, count: int) -> tuple[int, int, int]:
    """Find the source pixels that `count` resized pixels from `first` depend on.

    The span reaches further to the left than needed, to a pixel that maps to a whole output pixel:
    resized on its own, it then has the sampling points of the whole image.

    Returns:
        The first and last pixel (exclusive) of the span, and the output pixels before `first`.
    """
    reach = max(1, 1 / factor) + 2
    starts = np.arange(max(math.floor(first / factor - reach), 0), -1, -1)
    offset = starts * factor
    chosen = int(np.argmax(np.abs(offset - np.round(offset)) <= ALIGNMENT))
    stop = min(math.ceil((first + count) / factor + reach), length)
    return int(starts[chosen]), stop, first - round(offset[chosen])


def nearest_indices(length: int, full: int, first: int, count: int) -> np.ndarray:
    """Return the source pixel nearest to the centre of each of `count` resized pixels.

    Args:
        length: Pixels of the source axis.
        full: Pixels of the resized axis.
        first: First resized pixel wanted.
        count: Number of resized pixels wanted.
    """
    centres = (np.arange(first, first + count) + 0.5) * (length / full)
    return np.minimum(centres.astype(np.int64), length - 1)


@TRANSFORMS.register_module()
class ResizeToCover(ImageSized, BaseTransform):
    """Resize an image, keeping its aspect ratio, to the smallest size that covers the crop.

    For a square crop its shortest side becomes the crop's, exactly, whatever the aspect ratio
    (mmseg's Resize(scale=(2048, 512)) stops at 2048 pixels). The label keeps the original size.

    Args:
        size: Crop (height, width) in pixels; None takes the model's image size.
        scale: Factor of that size, at least 1, for test-time augmentation.

    Raises:
        ValueError: If the factor is below 1: the image would not cover the network's input.
    """

    SIZE = "size"

    def __init__(self, size: tuple[int, int] | None = None, scale: float = 1.0) -> None:
        if scale < 1:
            raise ValueError(
                f"ResizeToCover(scale={scale}): the image would be smaller than the network's "
                "input; scales begin at 1.0"
            )
        self.size = None if size is None else tuple(size)
        self.scale = scale

    def transform(self, results: dict) -> dict:
        """Replace `img`; set `img_shape` and `scale_factor` (width, height).

        Raises:
            ValueError: If there is neither a size nor a model to take it from.
        """
        self.check_size()
        height, width = results["img"].shape[:2]
        factor = self.scale * max(self.size[0] / height, self.size[1] / width)
        size = (round(height * factor), round(width * factor))
        results["img"] = resize_image(results["img"], size)
        results["img_shape"] = size
        results["scale_factor"] = (size[1] / width, size[0] / height)
        results["keep_ratio"] = True
        return results

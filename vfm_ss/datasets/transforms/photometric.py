"""The photometric distortion of SSD, as mmseg's PhotoMetricDistortion, through lookup tables."""

from typing import NamedTuple

import cv2
import numpy as np


class Distortion(NamedTuple):
    """One draw; None leaves a step out. Steps are in the order of the fields.

    brightness is added; contrast multiplies, before or after saturation and hue; saturation
    multiplies S and hue is added to H (180 is a full turn) of OpenCV's 8-bit HSV.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = False
    saturation: float | None = None
    hue: int | None = None


def draw_distortion(
    rng: np.random.Generator,
    brightness_delta: int = 32,
    contrast_range: tuple[float, float] = (0.5, 1.5),
    saturation_range: tuple[float, float] = (0.5, 1.5),
    hue_delta: int = 18,
) -> Distortion:
    """Draw every step with probability 1/2; the defaults are mmseg's and the authors' ranges."""
    use = rng.random(5) < 0.5
    brightness = rng.uniform(-brightness_delta, brightness_delta)
    contrast = rng.uniform(*contrast_range)
    saturation = rng.uniform(*saturation_range)
    hue = int(rng.integers(-hue_delta, hue_delta))
    return Distortion(
        brightness if use[0] else None,
        contrast if use[1] else None,
        bool(use[2]),
        saturation if use[3] else None,
        hue if use[4] else None,
    )


def _scaled(table: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
    """Apply `alpha * v + beta` to a table, cut to 0-255 and truncated as mmseg does."""
    values = table.astype(np.float32) * np.float32(alpha) + np.float32(beta)
    return np.clip(values, 0, 255).astype(np.uint8)


def distort(image: np.ndarray, draw: Distortion) -> np.ndarray:
    """Apply one draw to an image.

    mmseg goes back to BGR between saturation and hue; here both happen in one visit to HSV.

    Args:
        image: (H, W, 3) uint8, BGR.
        draw: The draw.

    Returns:
        (H, W, 3) uint8, BGR; the input itself where the draw does nothing.
    """
    identity = np.arange(256, dtype=np.uint8)
    before, after = identity, identity
    if draw.brightness is not None:
        before = _scaled(before, beta=draw.brightness)
    if draw.contrast is not None:
        if draw.contrast_first:
            before = _scaled(before, alpha=draw.contrast)
        else:
            after = _scaled(after, alpha=draw.contrast)
    if draw.saturation is None and draw.hue is None:
        return _look_up(image, after[before])

    image = cv2.cvtColor(_look_up(image, before), cv2.COLOR_BGR2HSV)
    hsv = np.repeat(identity[:, None, None], 3, axis=2)
    if draw.hue is not None:
        hsv[:, 0, 0] = (identity.astype(int) + draw.hue) % 180
    if draw.saturation is not None:
        hsv[:, 0, 1] = _scaled(identity, alpha=draw.saturation)
    return _look_up(cv2.cvtColor(cv2.LUT(image, hsv), cv2.COLOR_HSV2BGR), after)


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    unchanged = np.array_equal(table, np.arange(256))
    return image if unchanged else cv2.LUT(image, table)

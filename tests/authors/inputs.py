"""What both codes are given: weights, images, labels and points, all from stated seeds.

NumPy's legacy generator gives the same numbers in every version. Weights are drawn by name, so
neither code's initialisation matters.
"""

import zlib

import numpy as np

CLASSES, CROP, PATCH, IGNORE = 7, 64, 16, 255
MEAN = STD = (0.5, 0.5, 0.5)
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
DECODER = {"queries": 40, "channels": 32, "layers": 3, "heads": 4}
POINTS, OVERSAMPLE = 128, 3
# With weights of this size and seed many classes are predicted.
SEED = 5
GAINS = {"conv_seg": 8, "class_layer": 8, "mask_mlp": 3, "patch_embed": 8}
STEPS, BATCH, SCHEDULE = 3, 16, 40
# Height and width; the shortest side is the crop's, so that no resize is needed.
SIZES = [(64, 64), (64, 100), (64, 64), (150, 64), (64, 128), (64, 171), (65, 64), (64, 85)]


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a parameter by its name in this project."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) + SEED).standard_normal(shape)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        return 1 + 0.1 * draw
    if name.endswith(("queries.weight", "query_pos.weight")):
        return draw
    if len(shape) < 2 or "pos_embed" in name or "cls_token" in name:
        return 0.1 * draw
    gain = next((gain for part, gain in GAINS.items() if part in name), 1)
    return gain * draw / np.sqrt(np.prod(shape[1:]))


def image(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Make an image of blocks, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8.

    A tenth of the pixels is ignored; colours go with the classes.
    """
    rng = np.random.RandomState(1000 + number)
    blocks = rng.randint(0, CLASSES, (-(-height // 16), -(-width // 16)))
    labels = blocks.repeat(16, 0).repeat(16, 1)[:height, :width].astype(np.uint8)
    colours = np.random.RandomState(7).randint(0, 256, (CLASSES, 3))
    pixels = colours[labels] + rng.randint(-40, 41, (height, width, 3))
    labels[rng.random_sample(labels.shape) < 0.1] = IGNORE
    return pixels.clip(0, 255).astype(np.uint8), labels


def crop(step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Make image ``index`` of optimiser step ``step``."""
    return image(100 * (step + 1) + index, CROP, CROP)


def points(number: int, kind: int, row: int, count: int) -> np.ndarray:
    """Draw points in [0, 1]: 0 of the matching, 1 candidates and 2 the uniform ones of a pair."""
    seed = [number, kind, row]
    return np.random.RandomState(seed).random_sample((count, 2))


def projections(name: str, values: np.ndarray) -> list[float]:
    """Condense a tensor to its norm and its product with a random direction."""
    direction = np.random.RandomState(zlib.crc32(b"p" + name.encode())).standard_normal(values.size)
    flat = np.asarray(values, np.float64).ravel()
    return [float(np.sqrt(flat @ flat)), float(flat @ direction)]

"""Predicted classes painted over an image, with a legend."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Share of the colour of the class; the rest is the image.
OPACITY = 0.5


def palette_of(dataset, count: int) -> np.ndarray:
    """Return a colour for each class: the dataset's, or different hues where it has none.

    Args:
        dataset: A dataset of mmseg.
        count: Number of classes.

    Returns:
        (count, 3) uint8, RGB.
    """
    palette = dataset.metainfo.get("palette")
    if palette is not None and len(palette) == count:
        return np.array(palette, np.uint8)
    # Steps of the golden ratio spread any number of hues.
    hues = [(k * 0.618034 % 1, 0.55 + 0.45 * (k % 2), 1 - 0.3 * (k % 3) / 2) for k in range(count)]
    colours = np.array([colorsys.hsv_to_rgb(*hue) for hue in hues])
    return (255 * colours).round().astype(np.uint8)


def paint(image: np.ndarray, classes: np.ndarray, palette: np.ndarray, names: list[str]):
    """Paint classes over an image, and list those that occur to the right of it.

    Args:
        image: (H, W, 3) uint8, RGB.
        classes: (H, W) class of each pixel.
        palette: (K, 3) uint8, RGB.
        names: Of the K classes.

    Returns:
        A Pillow image whose left part, (H, W), is the painting; the legend names the classes by
        their share of the pixels, in percent.
    """
    blend = (1 - OPACITY) * image + OPACITY * palette[classes]
    counts = np.bincount(classes.ravel(), minlength=len(names))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    lines = [f"{names[k]}  {_percent(counts[k] / classes.size)}" for k in order]
    height, width = classes.shape
    size = int(np.clip(height / 28, 11, 40))
    font, step = ImageFont.load_default(size), round(1.5 * size)
    rows = max(height // step, 6)
    columns = [range(k, min(k + rows, len(order))) for k in range(0, len(order), rows)]
    widths = [round(max(font.getlength(lines[k]) for k in column)) + 3 * size for column in columns]
    canvas = Image.new(
        "RGB", (width + sum(widths), max(height, step * max(map(len, columns)))), "white"
    )
    canvas.paste(Image.fromarray(blend.round().astype(np.uint8)))
    draw, left = ImageDraw.Draw(canvas), width
    for column, wide in zip(columns, widths, strict=True):
        for row, k in enumerate(column):
            x, y = left + size // 2, row * step + size // 4
            colour = tuple(palette[order[k]].tolist())
            draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
            draw.text((x + round(1.5 * size), y), lines[k], fill="black", font=font)
        left += wide
    return canvas


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"

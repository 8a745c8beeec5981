"""Painting of procedural street scenes: a small picture with a class for every pixel.

Colours are drawn from palettes that the classes share (green hills, trees, grass and houses; grey
roads, gravel, clouds and cars), so texture and shape decide what is what.

Shapes: H and W picture size in pixels. Colours are RGB in [0, 1].
"""

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 96, 128

#: Label value of every class; 0 is "other", which is not evaluated.
LABELS = {
    name: value
    for value, name in enumerate(
        ("sky", "hill", "ground", "road", "building", "tree", "car", "person"), start=1
    )
}
OTHER = 0

_SKIES = ((0.36, 0.58, 0.88), (0.66, 0.69, 0.73), (0.86, 0.62, 0.48), (0.52, 0.68, 0.80))
_LAND = (
    (0.34, 0.50, 0.22),  # grass
    (0.66, 0.57, 0.38),  # sand
    (0.50, 0.40, 0.28),  # soil
    (0.50, 0.49, 0.47),  # gravel
    (0.46, 0.52, 0.30),  # dry grass
)
_ROADS = ((0.38, 0.38, 0.40), (0.52, 0.51, 0.50), (0.58, 0.48, 0.36))
_WALLS = (
    (0.72, 0.66, 0.55),
    (0.60, 0.32, 0.25),
    (0.50, 0.52, 0.55),
    (0.45, 0.56, 0.38),
    (0.55, 0.66, 0.78),
    (0.85, 0.82, 0.76),
)
_CROWNS = ((0.22, 0.42, 0.16), (0.38, 0.48, 0.18), (0.62, 0.46, 0.16), (0.55, 0.28, 0.16))
_PAINTS = (
    (0.75, 0.15, 0.14),
    (0.16, 0.30, 0.65),
    (0.85, 0.85, 0.85),
    (0.20, 0.21, 0.23),
    (0.30, 0.48, 0.26),
    (0.80, 0.65, 0.18),
    (0.55, 0.57, 0.60),
)
_SKIN = ((0.88, 0.70, 0.58), (0.62, 0.44, 0.32), (0.38, 0.26, 0.19))
_OVERSAMPLE = 4


def paint_scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint one scene.

    Args:
        rng: Source of everything that varies; equal states give equal scenes.

    Returns:
        The picture, uint8 (H, W, 3) RGB, and its labels, uint8 (H, W).
    """
    canvas = _Canvas(rng)
    horizon = int(rng.integers(34, 52))
    _paint_sky(canvas, horizon)
    if rng.random() < 0.75:
        _paint_hills(canvas, horizon)
    _paint_ground(canvas, horizon)
    if rng.random() < 0.7:
        _paint_road(canvas, horizon)
    _paint_objects(canvas, horizon)
    return canvas.developed(), canvas.labels


class _Canvas:
    """A picture and its labels, painted back to front."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.picture = np.zeros((HEIGHT, WIDTH, 3))
        self.labels = np.zeros((HEIGHT, WIDTH), np.uint8)

    def paint(self, mask: np.ndarray, colour, label: int | None = None) -> None:
        """Paint with ``colour``, (3,) or (H, W, 3), where ``mask``, (H, W) in [0, 1], covers."""
        self.picture += mask[..., None] * (np.asarray(colour) - self.picture)
        if label is not None:
            self.labels[mask > 0.5] = label

    def colour(self, palette: tuple, spread: float = 0.05) -> np.ndarray:
        """Draw a colour of the palette and vary it."""
        base = np.array(palette[self.rng.integers(len(palette))])
        return base * self.rng.uniform(0.85, 1.15) + self.rng.normal(0, spread, 3)

    def noise(self, cell_y: float, cell_x: float) -> np.ndarray:
        """Return smooth noise of about unit variance with cells of that many pixels, (H, W)."""
        shape = (round(HEIGHT / cell_y) + 2, round(WIDTH / cell_x) + 2)
        coarse = Image.fromarray(self.rng.standard_normal(shape).astype(np.float32))
        return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)

    def developed(self) -> np.ndarray:
        """Light and expose the picture as a camera would, noise included."""
        rng = self.rng
        y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
        light = rng.uniform(0.7, 1.2) * (1 + rng.uniform(-0.2, 0.2) * x + rng.uniform(0, 0.1) * y)
        cast = 1 + rng.normal(0, 0.05, 3)
        picture = np.clip(self.picture * light[..., None] * cast, 0, 1) ** rng.uniform(0.85, 1.2)
        picture += rng.normal(0, rng.uniform(0.01, 0.04), picture.shape)
        return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


class _Pen:
    """A mask drawn in picture coordinates, with soft edges."""

    def __init__(self):
        size = (WIDTH * _OVERSAMPLE, HEIGHT * _OVERSAMPLE)
        self._image = Image.new("L", size)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> "_Pen":
        """Fill a box."""
        return self.polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> "_Pen":
        """Fill an ellipse around (x, y)."""
        self._draw.ellipse([v * _OVERSAMPLE for v in (x - rx, y - ry, x + rx, y + ry)], fill=255)
        return self

    def polygon(self, *points: tuple[float, float]) -> "_Pen":
        """Fill a polygon."""
        self._draw.polygon([(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in points], fill=255)
        return self

    def mask(self) -> np.ndarray:
        """Return what was drawn, (H, W) in [0, 1]."""
        return np.asarray(self._image.reduce(_OVERSAMPLE), np.float64) / 255


def _paint_sky(canvas: _Canvas, horizon: int) -> None:
    top = canvas.colour(_SKIES)
    low = top + (1 - top) * canvas.rng.uniform(0.2, 0.6)
    height = np.clip(np.arange(HEIGHT) / horizon, 0, 1)[:, None, None]
    canvas.paint(np.ones((HEIGHT, WIDTH)), top + (low - top) * height, LABELS["sky"])
    clouds = canvas.noise(12, 30) + 0.5 * canvas.noise(6, 12)
    cover = np.clip(0.5 * (clouds - canvas.rng.uniform(-0.3, 1.5)), 0, 0.8)
    canvas.paint(cover, np.full(3, canvas.rng.uniform(0.75, 0.98)))


def _paint_hills(canvas: _Canvas, horizon: int) -> None:
    rng = canvas.rng
    for depth in range(rng.integers(1, 3)):
        ridge = horizon - rng.uniform(6, 20) / (1 + 0.5 * depth)
        ridge = ridge + 5 * canvas.noise(HEIGHT, 28)[0] + 1.5 * canvas.noise(HEIGHT, 8)[0]
        mask = np.clip(np.arange(HEIGHT)[:, None] - ridge, 0, 1)
        slopes = 0.10 * canvas.noise(9, 6) + 0.05 * canvas.noise(4, 3)
        colour = canvas.colour(_LAND) * (1 + slopes[..., None])
        haze = rng.uniform(0, 0.4)
        canvas.paint(mask, colour * (1 - haze) + 0.75 * haze, LABELS["hill"])


def _paint_ground(canvas: _Canvas, horizon: int) -> None:
    grain = 0.20 * canvas.noise(1, 2.5) + 0.08 * canvas.noise(5, 20)
    mask = np.broadcast_to((np.arange(HEIGHT) >= horizon)[:, None], (HEIGHT, WIDTH)) * 1.0
    canvas.paint(mask, canvas.colour(_LAND) * (1 + grain[..., None]), LABELS["ground"])


def _paint_road(canvas: _Canvas, horizon: int) -> None:
    rng = canvas.rng
    far = rng.uniform(0.2, 0.8) * WIDTH
    near = far + rng.uniform(-0.3, 0.3) * WIDTH
    half = rng.uniform(0.2, 0.45) * WIDTH
    edge = ((far - 2, horizon), (far + 2, horizon), (near + half, HEIGHT), (near - half, HEIGHT))
    colour = canvas.colour(_ROADS, 0.02) * (1 + 0.02 * canvas.noise(3, 6)[..., None])
    canvas.paint(_Pen().polygon(*edge).mask(), colour, LABELS["road"])
    if rng.random() < 0.6:
        dashes = _Pen()
        for start in np.arange(0.15, 1, 0.25):
            stop = start + 0.12
            x0, x1 = far + (near - far) * start, far + (near - far) * stop
            y0, y1 = horizon + (HEIGHT - horizon) * np.array([start, stop])
            dashes.polygon((x0 - start, y0), (x0 + start, y0), (x1 + stop, y1), (x1 - stop, y1))
        canvas.paint(dashes.mask(), (0.9, 0.9, 0.82))


def _paint_objects(canvas: _Canvas, horizon: int) -> None:
    """Paint objects from the far ones to the near ones, so near ones occlude."""
    rng = canvas.rng
    counts = {
        _paint_building: rng.integers(0, 4),
        _paint_tree: rng.integers(0, 5),
        _paint_car: rng.integers(0, 4),
        _paint_person: rng.integers(0, 6),
        _paint_post: rng.integers(0, 3),
    }
    todo = []
    for paint, count in counts.items():
        reach = 0.25 if paint is _paint_building else 0.85
        todo += [(float(rng.uniform(0.03, reach)), paint) for _ in range(count)]
    for depth, paint in sorted(todo, key=lambda item: item[0]):
        base = horizon + depth * (HEIGHT - horizon)
        paint(canvas, float(rng.uniform(0, WIDTH)), base, 0.45 + 0.75 * depth)


def _paint_shadow(canvas: _Canvas, x: float, base: float, width: float) -> None:
    shadow = _Pen().ellipse(x + 0.15 * width, base, 0.6 * width, 0.08 * width + 1).mask()
    canvas.paint(0.5 * shadow, np.zeros(3))


def _paint_building(canvas: _Canvas, x: float, base: float, scale: float) -> None:
    rng = canvas.rng
    width, height = scale * rng.uniform(36, 70), scale * rng.uniform(40, 90)
    left, top = x - width / 2, base - height
    wall = _Pen().box(left, top, left + width, base)
    if rng.random() < 0.4:
        wall.polygon((left - 2, top), (x, top - 0.25 * width), (left + width + 2, top))
    bricks = 0.04 * canvas.noise(1.5, 4)
    canvas.paint(wall.mask(), canvas.colour(_WALLS) * (1 + bricks[..., None]), LABELS["building"])
    pitch_x, pitch_y = rng.uniform(5, 8, 2)
    windows = _Pen()
    for wx in np.arange(left + 2, left + width - 3, pitch_x):
        for wy in np.arange(top + 3, base - 4, pitch_y):
            windows.box(wx, wy, wx + 0.55 * pitch_x, wy + 0.6 * pitch_y)
    glass = (0.2, 0.24, 0.3) if rng.random() < 0.7 else (0.9, 0.86, 0.62)
    canvas.paint(0.85 * windows.mask(), glass)


def _paint_tree(canvas: _Canvas, x: float, base: float, scale: float) -> None:
    rng = canvas.rng
    height, radius = scale * rng.uniform(34, 58), scale * rng.uniform(9, 16)
    _paint_shadow(canvas, x, base, 2 * radius)
    trunk = _Pen().box(x - 1.8 * scale, base - 0.6 * height, x + 1.8 * scale, base)
    canvas.paint(trunk.mask(), (0.32, 0.24, 0.17), LABELS["tree"])
    crown = _Pen()
    if rng.random() < 0.3:  # a fir
        crown.polygon((x, base - height), (x + radius, base - 6), (x - radius, base - 6))
    else:
        for _ in range(9):
            dx, dy = rng.uniform(-0.7, 0.7, 2) * radius
            size = radius * rng.uniform(0.4, 0.7)
            crown.ellipse(x + dx, base - 0.7 * height + dy, size, size)
    leaves = 0.28 * canvas.noise(2, 2) + 0.12 * canvas.noise(6, 6)
    canvas.paint(crown.mask(), canvas.colour(_CROWNS) * (1 + leaves[..., None]), LABELS["tree"])


def _paint_car(canvas: _Canvas, x: float, base: float, scale: float) -> None:
    rng = canvas.rng
    w, h = scale * rng.uniform(30, 44), scale * rng.uniform(13, 18)
    _paint_shadow(canvas, x, base, w)
    body = _Pen().box(x - w / 2, base - 0.6 * h, x + w / 2, base - 0.15 * h)
    body.polygon(
        (x - 0.32 * w, base - 0.6 * h),
        (x - 0.2 * w, base - h),
        (x + 0.2 * w, base - h),
        (x + 0.36 * w, base - 0.6 * h),
    )
    gloss = 0.25 * np.clip((base - 0.4 * h - np.arange(HEIGHT)) / h, -1, 1)[:, None, None]
    canvas.paint(body.mask(), canvas.colour(_PAINTS) * (1 + gloss), LABELS["car"])
    glass = _Pen().box(x - 0.2 * w, base - 0.92 * h, x - 0.02 * w, base - 0.62 * h)
    glass.box(x + 0.02 * w, base - 0.92 * h, x + 0.22 * w, base - 0.62 * h)
    canvas.paint(glass.mask(), (0.15, 0.18, 0.22))
    wheels = _Pen()
    for side in (-0.28, 0.28):
        wheels.ellipse(x + side * w, base - 0.15 * h, 0.1 * w, 0.1 * w)
    canvas.paint(wheels.mask(), (0.08, 0.08, 0.09), LABELS["car"])


def _paint_person(canvas: _Canvas, x: float, base: float, scale: float) -> None:
    rng = canvas.rng
    h = scale * rng.uniform(30, 42)
    w = 0.38 * h
    _paint_shadow(canvas, x, base, w)
    stride = rng.uniform(0.1, 0.5) * w
    legs = _Pen()
    for foot in (-stride, stride):
        legs.polygon(
            (x - 0.2 * w, base - 0.5 * h),
            (x + 0.2 * w, base - 0.5 * h),
            (x + foot + 0.15 * w, base),
            (x + foot - 0.15 * w, base),
        )
    canvas.paint(legs.mask(), canvas.colour(_PAINTS) * 0.6, LABELS["person"])
    torso = _Pen().ellipse(x, base - 0.62 * h, 0.42 * w, 0.24 * h)
    canvas.paint(torso.mask(), canvas.colour(_PAINTS), LABELS["person"])
    head = _Pen().ellipse(x, base - 0.9 * h, 0.09 * h, 0.1 * h)
    canvas.paint(head.mask(), canvas.colour(_SKIN), LABELS["person"])


def _paint_post(canvas: _Canvas, x: float, base: float, scale: float) -> None:
    height = scale * canvas.rng.uniform(40, 60)
    post = _Pen().box(x - 0.8 * scale, base - height, x + 0.8 * scale, base)
    post.ellipse(x, base - height, 2.5 * scale, 2 * scale)
    canvas.paint(post.mask(), (0.25, 0.25, 0.27), OTHER)

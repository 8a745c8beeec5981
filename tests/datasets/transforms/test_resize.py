import cv2
import numpy as np
import pytest
from PIL import Image

from vfm_ss.datasets.transforms.resize import ResizeToCover, resize_image, resize_part


def noise(height, width, seed=0):
    """Noise with some correlation: as rough as photographs get."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(values, (0, 0), 0.8)


@pytest.mark.parametrize("size", [(30, 47), (61, 80), (59, 79), (60, 200), (151, 207), (150, 20)])
def test_equals_pillow(size):
    image = noise(60, 80)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    error = np.abs(resize_image(image, size).astype(int) - np.asarray(expected))
    assert error.max() <= 1


@pytest.mark.parametrize("seed", range(60))
def test_part_equals_the_cut_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    image = noise(*rng.integers(20, 150, 2), seed)
    factor = rng.uniform(0.2, 2.5)
    full = tuple(max(int(side * factor), 1) for side in image.shape[:2])
    size = tuple(int(rng.integers(1, side + 1)) for side in full)
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(full, size, strict=True))
    factors = tuple(new / old for new, old in zip(full, image.shape[:2], strict=True))
    whole = resize_image(image, full)[top : top + size[0], left : left + size[1]]
    part = resize_part(image, factors, top, left, size)
    assert part.shape == (*size, 3)
    error = np.abs(part.astype(int) - whole)
    # 1/64 pixel of the steepest slope, and rounding.
    assert error.max() <= 5
    assert error.mean() < 0.5


def test_prepare_sees_only_the_source_pixels():
    image = noise(400, 400)
    seen = []
    resize_part(image, (2.0, 2.0), 300, 500, (64, 64), lambda part: seen.append(part.shape) or part)
    assert max(seen[0][:2]) < 50


class TestResizeToCover:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((512, 683), (64, 85)),
            ((683, 512), (85, 64)),
            ((64, 64), (64, 64)),
            ((10, 10), (64, 64)),
            ((20, 1500), (64, 4800)),
            ((1500, 20), (4800, 64)),
            ((333, 127), (168, 64)),
        ],
    )
    def test_shortest_side_is_the_crop_s(self, size, expected):
        result = ResizeToCover((64, 64))(dict(img=np.zeros((*size, 3), np.uint8)))
        assert result["img"].shape[:2] == result["img_shape"] == expected

    def test_exactly_for_every_size(self):
        transform = ResizeToCover((512, 512))
        for side in range(20, 3000, 7):
            factor = max(512 / side, 512 / (3 * side))
            assert round(side * factor) == 512
        assert transform.size == (512, 512)

    def test_crop_that_is_not_square_is_covered(self):
        result = ResizeToCover((64, 128))(dict(img=np.zeros((100, 100, 3), np.uint8)))
        assert result["img_shape"] == (128, 128)

    def test_equals_the_authors_resize(self):
        """torchvision's, of uint8 with anti-aliasing, to round(side * factor)."""
        import torch
        from torchvision.transforms.v2.functional import resize

        image = noise(150, 203)
        result = ResizeToCover((64, 64))(dict(img=image))
        theirs = resize(torch.from_numpy(image).permute(2, 0, 1), [64, round(203 * 64 / 150)])
        error = np.abs(result["img"].astype(int) - theirs.permute(1, 2, 0).numpy())
        assert error.max() <= 1

import numpy as np
import pytest
from mmseg.datasets.transforms import PhotoMetricDistortion

from vfm_ss.datasets.transforms.photometric import Distortion, distort, draw_distortion


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (50, 70, 3), np.uint8)


class Scripted:
    """Stands for numpy.random inside mmseg's transform and plays a Distortion."""

    def __init__(self, draw):
        self.coins = [
            draw.brightness is not None,
            draw.contrast_first,
            *([draw.contrast is not None] if draw.contrast_first else []),
            draw.saturation is not None,
            draw.hue is not None,
            *([] if draw.contrast_first else [draw.contrast is not None]),
        ]
        numbers = [draw.brightness]
        numbers += [draw.contrast, draw.saturation] if draw.contrast_first else []
        numbers += [] if draw.contrast_first else [draw.saturation, draw.contrast]
        self.numbers = [number for number in numbers if number is not None]
        self.draw = draw

    def randint(self, low, high=None):
        return int(self.coins.pop(0)) if high is None else self.draw.hue

    def uniform(self, low, high):
        return self.numbers.pop(0)


def mmseg_distort(monkeypatch, img, draw):
    module = "mmseg.datasets.transforms.transforms.random"
    monkeypatch.setattr(module, Scripted(draw))
    return PhotoMetricDistortion()(dict(img=img))["img"]


DRAWS = [draw_distortion(np.random.default_rng(seed)) for seed in range(300)]


def test_equals_mmseg_bit_for_bit_with_the_same_draw(monkeypatch):
    """But where both saturation and hue change, for which mmseg rounds through BGR in between."""
    compared = 0
    for draw in DRAWS:
        if draw.saturation is not None and draw.hue is not None:
            continue
        expected = mmseg_distort(monkeypatch, image(), draw)
        assert np.array_equal(distort(image(), draw), expected), draw
        compared += 1
    assert compared > 200


def test_differs_from_mmseg_by_rounding_where_saturation_and_hue_change(monkeypatch):
    compared = 0
    for draw in DRAWS:
        if draw.saturation is None or draw.hue is None:
            continue
        expected = mmseg_distort(monkeypatch, image(), draw).astype(int)
        error = np.abs(distort(image(), draw) - expected)
        assert error.mean() < 1.5, draw
        compared += 1
    assert compared > 50


def test_no_step_is_the_identity():
    assert distort(image(), Distortion()) is not None
    assert np.array_equal(distort(image(), Distortion()), image())
    assert np.array_equal(distort(image(), Distortion(brightness=0.0, contrast=1.0)), image())


def test_draws_have_mmseg_s_distribution():
    draws = [draw_distortion(np.random.default_rng((7, k))) for k in range(4000)]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 18),
    ):
        values = np.array([getattr(d, name) for d in draws if getattr(d, name) is not None], float)
        assert abs(len(values) / 4000 - 0.5) < 0.035
        assert low <= values.min() < low + 0.02 * (high - low) + 1
        assert high - 0.02 * (high - low) - 1 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.035 * (high - low)
    assert max(d.hue for d in draws if d.hue is not None) == 17  # mmseg's randint leaves 18 out
    assert abs(np.mean([d.contrast_first for d in draws]) - 0.5) < 0.035


@pytest.mark.parametrize("contiguous", [True, False])
def test_input_is_not_changed(contiguous):
    whole = image()
    part = whole if contiguous else whole[5:40, 10:60]
    before = whole.copy()
    for draw in DRAWS[:30]:
        distort(part, draw)
    assert np.array_equal(whole, before)

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from vfm_ss.models.segmentors.sliding_window import (
    SlidingWindowEncoderDecoder,
    axis_matrix,
    merged_tiles,
    strides_of,
    window_starts,
)


@MODELS.register_module(force=True)
class PatchAverage(nn.Module):
    """A backbone whose features depend on the position inside the window, as a ViT's do."""

    def __init__(self, patch=4, channels=6):
        super().__init__()
        self.project = nn.Conv2d(3, channels, patch, stride=patch)
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        features = self.project(x)
        ramp = torch.linspace(0, 1, features.shape[-1], dtype=x.dtype)
        return (features * (1 + ramp),)


def build(cls=SlidingWindowEncoderDecoder, classes=5, head=None, **test_cfg):
    torch.manual_seed(0)
    head = head or dict(type="FCNHead", num_convs=0, concat_input=False, kernel_size=1)
    return cls(
        backbone=dict(type="PatchAverage"),
        decode_head=dict(in_channels=6, channels=6, num_classes=classes, dropout_ratio=0, **head),
        test_cfg=ConfigDict(test_cfg),
    ).eval()


def samples(*sizes, **meta):
    return [SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, **meta)) for size in sizes]


def brute_force(model, image, crop, size):
    """The steps of the paper one after the other, in float64, for a crop x crop window."""
    model.double()
    image = image.double()
    height, width = image.shape[-2:]
    count = math.ceil(max(height, width) / crop)
    total = torch.zeros(model.num_classes, height, width, dtype=torch.float64)
    times = torch.zeros(height, width, dtype=torch.float64)
    for k in range(count):
        start = 0 if count == 1 else k * (max(height, width) - crop) // (count - 1)
        at = (slice(None), slice(start, start + crop))
        at = at if width > height else at[::-1]
        logits = model.decode_head(model.extract_feat(image[(slice(None), *at)][None]))
        total[(slice(None), *at)] += F.interpolate(logits, (crop, crop), mode="bilinear")[0]
        times[at] += 1
    model.float()
    return F.interpolate((total / times)[None], size, mode="bilinear")[0]


def assert_same_classes(pred, logits, margin=1e-4):
    """Equal wherever the two best classes are further apart than float32 rounding."""
    best = logits.topk(2, dim=0).values
    clear = best[0] - best[1] > margin
    assert clear.float().mean() > 0.98
    assert torch.equal(pred[clear], logits.argmax(0)[clear])


class TestWindowStarts:
    def test_covers_every_pixel_with_the_fewest_even_windows(self):
        for length in range(512, 4200):
            starts = window_starts(length, 512)
            assert len(starts) == math.ceil(length / 512)
            assert starts[0] == 0
            assert starts[-1] == length - 512
            steps = [b - a for a, b in pairwise(starts)]
            assert all(0 < step <= 512 for step in steps)
            assert not steps or max(steps) - min(steps) <= 1

    def test_equals_the_authors_formula_up_to_its_rounding(self):
        for length in range(513, 4200):
            count = math.ceil(length / 512)
            overlap = (count * 512 - length) / (count - 1)
            theirs = [int(k * (512 - overlap)) for k in range(count)]
            ours = window_starts(length, 512)
            assert all(0 <= a - b <= 1 for a, b in zip(ours, theirs, strict=True))

    def test_stride_is_mmseg_s_rule(self):
        assert window_starts(683, 512, 341) == [0, 171]
        assert window_starts(2048, 1024, 768) == [0, 768, 1024]
        assert window_starts(512, 512, 341) == [0]

    def test_a_share_of_the_window_is_rounded_down(self):
        assert strides_of(2 / 3, (512, 512)) == (341, 341)  # DINOv3's
        assert strides_of(2 / 3, (1024, 448)) == (682, 298)
        assert strides_of((341, 300), (512, 512)) == (341, 300)
        assert strides_of(None, (512, 512)) == (None, None)

    @pytest.mark.parametrize("stride", [0.0, 1.5, 341, (341,), (0, 341), (513, 341), "341", 0.001])
    def test_other_strides_are_refused(self, stride):
        with pytest.raises(ValueError, match=r"test_cfg\.stride=.* up to the window's 512x512"):
            strides_of(stride, (512, 512))

    def test_smaller_image_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"511 pixels.*512 pixel window.*ResizeToCover"):
            window_starts(511, 512)


class TestMerging:
    @pytest.mark.parametrize("align_corners", [False, True])
    def test_axis_matrix_is_a_mean_of_logits(self, align_corners):
        matrix = axis_matrix([0, 20, 41], 32, 4, 73, 51, align_corners)
        assert matrix.shape == (51, 12)
        assert (matrix >= 0).all()
        assert matrix.sum(1) == pytest.approx(1, rel=1e-7)

    def test_tiles_partition_the_output(self, monkeypatch):
        monkeypatch.setattr("vfm_ss.models.segmentors.sliding_window.CPU_TILE", 700)
        rows = axis_matrix([0], 32, 8, 32, 150)
        cols = axis_matrix([0, 32], 32, 8, 64, 300)
        windows = torch.randn(1, 2, 3, 8, 8, dtype=torch.float64)
        seen = torch.zeros(150, 300)
        for down, across, tile in merged_tiles(windows, rows, cols):
            seen[down, across] += 1
            assert tile.shape == (down.stop - down.start, across.stop - across.start, 3)
        assert (seen == 1).all()


class TestPredict:
    # Landscape, portrait, square, extreme aspect, a resize up and one down to the original size.
    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            ((32, 75), (64, 150)),
            ((75, 32), (51, 22)),
            ((32, 32), (40, 40)),
            ((32, 331), (16, 166)),
            ((32, 64), (33, 65)),
        ],
    )
    def test_equals_brute_force_in_float64(self, shape, size):
        model = build(mode="slide", crop_size=(32, 32))
        image = torch.randn(3, *shape)
        with torch.no_grad():
            pred = model.predict(image[None], samples(size))[0].pred_sem_seg.data
            logits = brute_force(model, image, 32, size)
        assert pred.shape == (1, *size)
        assert pred.dtype == torch.int64
        assert_same_classes(pred[0], logits)

    def test_logits_equal_brute_force_in_float64(self, monkeypatch):
        monkeypatch.setattr("vfm_ss.models.segmentors.sliding_window.CPU_TILE", 999)
        model = build(mode="slide", crop_size=(32, 32)).double()
        image = torch.randn(3, 32, 119, dtype=torch.float64)
        with torch.no_grad():
            expected = brute_force(model, image, 32, (32, 119))
            model.double()
            places = list(model._merged([image], [(32, 119)]))
            ours = torch.empty_like(expected)
            for down, across, tile in places[0]:
                ours[:, down, across] = tile.permute(2, 0, 1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)

    # With two windows mmseg's stride rule puts them at both ends, as the authors' does.
    @pytest.mark.parametrize("width", [33, 50, 64])
    def test_equals_mmseg_where_the_schemes_coincide(self, width):
        cfg = dict(mode="slide", crop_size=(32, 32), stride=(32, 32))
        ours, theirs = build(**cfg), build(EncoderDecoder, **cfg)
        evenly = build(mode="slide", crop_size=(32, 32))
        image, size = torch.randn(1, 3, 32, width), (47, 71)
        with torch.no_grad():
            reference = theirs.predict(image, samples(size))[0]
            for model in (ours, evenly):
                pred = model.predict(image, samples(size))[0].pred_sem_seg.data[0]
                assert_same_classes(pred, reference.seg_logits.data)
            torch.testing.assert_close(
                ours.slide_inference(image, [{}]),
                theirs.slide_inference(image, [{}]),
                rtol=1e-4,
                atol=1e-5,
            )

    def test_stride_over_both_axes_equals_mmseg(self):
        cfg = dict(mode="slide", crop_size=(32, 24), stride=(20, 13))
        ours, theirs = build(**cfg), build(EncoderDecoder, **cfg)
        image = torch.randn(2, 3, 61, 83)
        with torch.no_grad():
            torch.testing.assert_close(
                ours.slide_inference(image, [{}]),
                theirs.slide_inference(image, [{}]),
                rtol=1e-4,
                atol=1e-5,
            )

    @pytest.mark.parametrize("size", [(512, 683), (700, 512), (512, 512)])
    def test_dinov3_s_windows_of_512_are_341_apart(self, size):
        """Sums and counts over the image, pixel by pixel, in float64; then the original's size."""
        model = build(mode="slide", crop_size=(512, 512), stride=2 / 3).double()
        image = torch.randn(3, *size, dtype=torch.float64)
        total = torch.zeros(5, *size, dtype=torch.float64)
        times = torch.zeros(size, dtype=torch.float64)
        tops, lefts = [
            sorted({min(start, side - 512) for start in range(0, side - 512 + 341, 341)})
            for side in size
        ]
        assert len(tops) * len(lefts) == (1 if size == (512, 512) else 2)
        for top in tops:
            for left in lefts:
                window = np.s_[..., top : top + 512, left : left + 512]
                with torch.no_grad():
                    logits = model.decode_head(model.extract_feat(image[window][None]))
                total[window] += F.interpolate(logits, (512, 512), mode="bilinear")[0]
                times[window] += 1
        expected = F.interpolate((total / times)[None], (300, 400), mode="bilinear")[0]
        with torch.no_grad():
            (tiles,) = model._merged([image], [(300, 400)])
            ours = torch.empty_like(expected)
            for down, across, tile in tiles:
                ours[:, down, across] = tile.permute(2, 0, 1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)

    def test_windows_of_a_padded_batch_run_as_one_batch(self):
        model = build(mode="slide", crop_size=(32, 32))
        images = [torch.randn(3, 32, 80), torch.randn(3, 50, 32)]
        alone = [
            model.predict(image[None], samples((60, 60)))[0].pred_sem_seg.data for image in images
        ]
        batch = samples((60, 60), (60, 60))
        inputs = torch.zeros(2, 3, 50, 80)
        for k, image in enumerate(images):
            height, width = image.shape[-2:]
            inputs[k, :, :height, :width] = image
            batch[k].set_metainfo(dict(img_padding_size=(0, 80 - width, 0, 50 - height)))
        model.backbone.batches.clear()
        together = model.predict(inputs, batch)
        assert model.backbone.batches == [3 + 2]
        for sample, expected in zip(together, alone, strict=True):
            assert torch.equal(sample.pred_sem_seg.data, expected)

    def test_window_batch_bounds_a_pass_and_changes_nothing(self):
        image, size = torch.randn(1, 3, 32, 300), (32, 300)
        whole = build(mode="slide", crop_size=(32, 32))
        parts = build(mode="slide", crop_size=(32, 32), window_batch=4)
        expected = whole.predict(image, samples(size))[0].pred_sem_seg.data
        assert torch.equal(parts.predict(image, samples(size))[0].pred_sem_seg.data, expected)
        assert whole.backbone.batches == [10]
        assert parts.backbone.batches == [4, 4, 2]

    def test_head_with_its_own_predict_gives_window_sized_logits(self):
        @MODELS.register_module(force=True)
        class SquaredHead(MODELS.get("FCNHead")):
            def predict(self, inputs, batch_img_metas, test_cfg):
                return super().predict(inputs, batch_img_metas, test_cfg) ** 2

        head = dict(type="SquaredHead", num_convs=0, concat_input=False, kernel_size=1)
        model = build(mode="slide", crop_size=(32, 32), head=head).double()
        image = torch.randn(3, 32, 50, dtype=torch.float64)
        total = torch.zeros(5, 32, 50, dtype=torch.float64)
        times = torch.zeros(50)
        with torch.no_grad():
            for start in (0, 18):
                low = model.decode_head(model.extract_feat(image[None, ..., start : start + 32]))
                squared = F.interpolate(low, (32, 32), mode="bilinear")[0] ** 2
                total[..., start : start + 32] += squared
                times[start : start + 32] += 1
            pred = model.predict(image[None], samples((32, 50)))[0].pred_sem_seg.data[0]
        assert_same_classes(pred, total / times, margin=1e-9)

    @pytest.mark.parametrize("threshold", [0.3, 0.8])
    def test_one_channel_is_a_threshold_on_the_sigmoid_of_the_averaged_logits(self, threshold):
        head = dict(type="FCNHead", num_convs=0, concat_input=False, kernel_size=1)
        head |= dict(out_channels=1, threshold=threshold)
        image, size = torch.randn(3, 32, 80), (47, 71)
        cfg = dict(mode="slide", crop_size=(32, 32))
        found = {}
        with torch.no_grad():
            for kind, keep in (("lean", False), ("mmseg's own", True)):
                model = build(classes=2, head=head, seg_logits=keep, **cfg)
                model.decode_head.conv_seg.weight.mul_(40)
                pred = model.predict(image[None], samples(size))[0].pred_sem_seg.data[0]
                assert pred.dtype == torch.int64
                found[kind] = pred
            model.num_classes = 1  # of the channels that are averaged
            probability = brute_force(model, image, 32, size)[0].sigmoid()
        clear = (probability - threshold).abs() > 1e-4
        assert clear.float().mean() > 0.98
        for pred in found.values():
            assert torch.equal(pred[clear], (probability > threshold)[clear].long())
        assert 0.1 < found["lean"].float().mean() < 0.9

    def test_keeps_logits_only_on_request(self):
        image, size = torch.randn(1, 3, 32, 50), (40, 60)
        lean = build(mode="slide", crop_size=(32, 32)).predict(image, samples(size))[0]
        full = build(mode="slide", crop_size=(32, 32), seg_logits=True)
        full = full.predict(image, samples(size))[0]
        assert "seg_logits" not in lean
        assert full.seg_logits.shape == size
        assert_same_classes(lean.pred_sem_seg.data[0], full.seg_logits.data)

    def test_flipped_input_is_flipped_back(self):
        model = build(mode="slide", crop_size=(32, 32), seg_logits=True)
        image = torch.randn(1, 3, 32, 50)
        plain = model.predict(image, samples((32, 50)))[0].pred_sem_seg.data
        meta = dict(flip=True, flip_direction="horizontal")
        back = model.predict(image, samples((32, 50), **meta))[0].pred_sem_seg.data
        assert torch.equal(back, plain.flip(2))

    def test_without_samples_predicts_at_the_input_s_size(self):
        model = build(mode="slide", crop_size=(32, 32))
        image = torch.randn(1, 3, 32, 50)
        pred = model.predict(image)[0].pred_sem_seg.data
        expected = model.predict(image, samples((32, 50)))[0].pred_sem_seg.data
        assert torch.equal(pred, expected)

    def test_autocast_does_not_reach_the_averaging(self):
        model = build(mode="slide", crop_size=(32, 32))
        logits = torch.randn(2, 5, 8, 8)
        model._window_logits = lambda windows: logits
        image = torch.randn(1, 3, 32, 50)
        expected = model.predict(image, samples((64, 100)))[0].pred_sem_seg.data
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pred = model.predict(image, samples((64, 100)))[0].pred_sem_seg.data
        assert torch.equal(pred, expected)

    def test_memory_of_a_large_image_is_bounded(self):
        model = build(mode="slide", crop_size=(32, 32), classes=150)
        peak = 0
        with torch.no_grad():
            for tiles in model._merged([torch.randn(3, 32, 43)], [(3000, 4000)]):
                for _, _, tile in tiles:
                    peak = max(peak, tile.numel())
        assert peak * 4 < 8 * 2**20  # bytes, where all the logits would take 7.2 GB

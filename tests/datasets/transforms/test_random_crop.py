"""The crop-first pipeline against the plain order, written down step by step."""

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import MODELS, TRANSFORMS
from PIL import Image

from vfm_ss.datasets.seeding import SampleIndex, sample_rng
from vfm_ss.datasets.transforms import random_crop
from vfm_ss.datasets.transforms.decode import reduction
from vfm_ss.datasets.transforms.photometric import distort, draw_distortion
from vfm_ss.datasets.transforms.random_crop import LoadRandomCrop
from vfm_ss.datasets.transforms.resize import nearest_indices

IGNORE = 255


def scene(height, width, seed=0):
    """A smooth colour image and a label of large regions, so that edges are few but present."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    coarse = rng.integers(1, 20, (4, 5), dtype=np.uint8)
    label = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    return image, label


def write(folder, image, label, kind="png", palette=False):
    image_path, label_path = folder / f"image.{kind}", folder / "label.png"
    options = dict(quality=95, subsampling=0) if kind == "jpg" else {}
    Image.fromarray(image[..., ::-1]).save(image_path, **options)
    stored = Image.fromarray(label)
    if palette:
        stored = Image.frombytes("P", stored.size, stored.tobytes())
        stored.putpalette([(5 * k) % 256 for k in range(768)])
        stored.save(label_path, bits=8)
    else:
        stored.save(label_path)
    return dict(img_path=str(image_path), seg_map_path=str(label_path), reduce_zero_label=True)


def sample(info, position=0, seed=0):
    return dict(info, sample_idx=SampleIndex(0, seed, position), seg_fields=[])


def plain_order(transform, info, position):
    """Flip, distort, resize, pad and crop the whole image, with the draws of one sample."""
    rng = sample_rng(sample(info, position))
    image = np.asarray(Image.open(info["img_path"]).convert("RGB"))[..., ::-1]
    label = np.asarray(Image.open(info["seg_map_path"]))
    plan = transform.draw_plan(rng, image.shape[:2])
    colours = draw_distortion(rng)
    left = plan.left
    if plan.flip:
        image, label = image[:, ::-1], label[:, ::-1]
        left = plan.size[1] - plan.shape[1] - left
    image = distort(np.ascontiguousarray(image), colours)
    height, width = plan.size
    # Pillow's bilinear filter is an independent implementation of the same anti-aliased resize.
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    label = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    label = np.where(label == 0, IGNORE, label - 1).astype(np.uint8)
    pad = [
        (0, max(crop - side, 0)) for crop, side in zip(transform.crop_size, plan.size, strict=True)
    ]
    image = np.pad(image, [*pad, (0, 0)])
    label = np.pad(label, pad, constant_values=IGNORE)
    window = np.s_[
        plan.top : plan.top + transform.crop_size[0], left : left + transform.crop_size[1]
    ]
    return image[window], label[window], ties(transform, plan, info, left)


def ties(transform, plan, info, left):
    """Mark pixels whose centre falls on a border between source pixels: nearest is either one."""
    mask = np.zeros(transform.crop_size, bool)
    source = np.asarray(Image.open(info["seg_map_path"])).shape
    for axis, first in enumerate((plan.top, left)):
        centres = np.arange(first, first + transform.crop_size[axis]) + 0.5
        centres *= source[axis] / plan.size[axis]
        tied = np.abs(centres - np.round(centres)) < 1e-6
        mask |= tied[:, None] if axis == 0 else tied
    return mask


class TestPlainOrder:
    @pytest.mark.parametrize("relative_to", ["image", "crop", "cover"])
    @pytest.mark.parametrize("size", [(96, 120), (150, 70), (61, 333)])
    def test_values_are_those_of_the_plain_order(self, tmp_path, size, relative_to):
        transform = LoadRandomCrop((80, 64), scale_relative_to=relative_to)
        info = write(tmp_path, *scene(*size))
        free, errors, scales = [], [], []
        for position in range(120):
            result = transform(sample(info, position))
            image, label, tied = plain_order(transform, info, position)
            assert result["img"].shape == image.shape == (80, 64, 3)
            assert result["img"].dtype == np.uint8
            assert np.array_equal(result["gt_seg_map"][~tied], label[~tied])
            free.append((~tied).mean())
            errors.append(np.abs(result["img"].astype(int) - image).mean())
            scales.append(result["scale_factor"][0])
        assert np.mean(free) > 0.8
        assert np.mean(errors) < 0.6
        assert max(errors) < 3
        assert min(scales) < 0.7 * max(scales)

    def test_geometry_is_exact_without_distortion(self, tmp_path):
        transform = LoadRandomCrop((64, 64), distortion=None)
        info = write(tmp_path, *scene(90, 130))
        for position in range(100):
            result = transform(sample(info, position))
            rng = sample_rng(sample(info, position))
            image = np.asarray(Image.open(info["img_path"]))[..., ::-1]
            plan = transform.draw_plan(rng, image.shape[:2])
            whole = Image.fromarray(image).resize(plan.size[::-1], Image.Resampling.BILINEAR)
            top, left, (height, width) = plan.top, plan.left, plan.shape
            part = np.asarray(whole)[top : top + height, left : left + width]
            part = part[:, ::-1] if plan.flip else part
            assert np.abs(result["img"][:height, :width].astype(int) - part).max() <= 3
            assert (result["img"][height:] == 0).all()
            assert (result["img"][:, width:] == 0).all()
            assert (result["gt_seg_map"][height:] == IGNORE).all()
            assert (result["gt_seg_map"][:, width:] == IGNORE).all()

    def test_image_and_label_stay_aligned(self, tmp_path):
        """An image that shows its label: the two crops agree but for blended edges."""
        _, label = scene(100, 140)
        transform = LoadRandomCrop((64, 64), distortion=None)
        info = write(tmp_path, np.repeat(label[..., None] * 12, 3, axis=2), label)
        agree = []
        for position in range(100):
            result = transform(sample(info, position))
            valid = result["gt_seg_map"] != IGNORE
            shown = np.round(result["img"][..., 0] / 12) - 1
            agree.append((shown == result["gt_seg_map"])[valid].mean())
        assert min(agree) > 0.85
        assert np.mean(agree) > 0.93

    @pytest.mark.parametrize("size", [(512, 640), (511, 643)])
    def test_reduced_decoding_keeps_the_sample(self, tmp_path, size, monkeypatch):
        """Crop-relative scales of a large JPEG need an eighth of its pixels."""
        transform = LoadRandomCrop((64, 64), scale_relative_to="crop", distortion=None)
        info = write(tmp_path, *scene(*size), kind="jpg")
        decoded = set()
        for position in range(60):
            reduced = transform(sample(info, position))
            decoded.add(reduction(b"\xff\xd8", max(reduced["scale_factor"])))
            with monkeypatch.context() as patch:
                patch.setattr(random_crop, "reduction", lambda data, factor: 1)
                full = transform(sample(info, position))
            assert np.array_equal(reduced["gt_seg_map"], full["gt_seg_map"])
            error = np.abs(reduced["img"].astype(int) - full["img"])
            assert error.mean() < 1
            assert error.max() < 40
        assert decoded == {4, 8}


class TestDistribution:
    def test_every_draw_has_its_published_distribution(self):
        transform = LoadRandomCrop((64, 64))
        size, count = (100, 150), 4000
        plans = [transform.draw_plan(np.random.default_rng((0, k)), size) for k in range(count)]
        scales = np.array([plan.size[1] / size[1] for plan in plans])
        # Kolmogorov-Smirnov at 0.1 %: 1.95 / sqrt(n).
        uniform = (np.sort(scales) - 0.5) / 1.5
        gap = np.abs(uniform - np.arange(1, count + 1) / count).max()
        assert gap < 1.95 / np.sqrt(count) + 0.01  # sizes are whole pixels
        assert abs(np.mean([plan.flip for plan in plans]) - 0.5) < 4 * 0.5 / np.sqrt(count)
        tops = np.array([p.top / (p.size[0] - 64) for p in plans if p.size[0] > 104])
        hist = np.histogram(tops, bins=8, range=(0, 1))[0] / len(tops)
        assert np.abs(hist - 1 / 8).max() < 0.03
        assert all(plan.shape == tuple(map(min, plan.size, (64, 64))) for plan in plans)

    def test_both_flips_see_every_column(self):
        transform = LoadRandomCrop((64, 64), scale_range=(1, 1))
        plans = [transform.draw_plan(np.random.default_rng((1, k)), (64, 70)) for k in range(600)]
        for flip in (False, True):
            assert {plan.left for plan in plans if plan.flip == flip} == set(range(7))


class TestSeeding:
    def test_same_position_same_sample_whatever_the_global_state(self, tmp_path):
        transform = LoadRandomCrop((64, 64))
        info = write(tmp_path, *scene(90, 130))
        np.random.seed(1)
        first = transform(sample(info, 7))
        np.random.seed(2)
        again = transform(sample(info, 7))
        other = transform(sample(info, 8))
        assert np.array_equal(first["img"], again["img"])
        assert np.array_equal(first["gt_seg_map"], again["gt_seg_map"])
        assert not np.array_equal(first["img"], other["img"])

    def test_without_a_position_follows_numpy_s_global_state(self, tmp_path):
        transform = LoadRandomCrop((64, 64))
        info = write(tmp_path, *scene(90, 130))
        images = []
        for seed in (1, 1, 2):
            np.random.seed(seed)
            images.append(transform(dict(info, sample_idx=0))["img"])
        assert np.array_equal(images[0], images[1])
        assert not np.array_equal(images[0], images[2])


class TestLabels:
    def test_palette_image_gives_its_indices(self, tmp_path):
        image, label = scene(90, 130)
        transform = LoadRandomCrop((64, 64))
        gray = transform(sample(write(tmp_path, image, label)))
        palette = transform(sample(write(tmp_path, image, label, palette=True)))
        assert np.array_equal(gray["gt_seg_map"], palette["gt_seg_map"])

    def test_label_of_another_size_is_resized_to_the_image_first(self, tmp_path):
        image, label = scene(90, 130)
        transform = LoadRandomCrop((64, 64))
        small = np.ascontiguousarray(label[::2, ::2])
        info = write(tmp_path, image, small)
        with pytest.raises(ValueError, match=r"label\.png: .* 65 x 45 .*image\.png is 130 x 90"):
            transform(sample(info))
        resized = np.asarray(Image.fromarray(small).resize((130, 90), Image.Resampling.NEAREST))
        ours = [
            transform(sample(dict(info, resize_label=True), k))["gt_seg_map"] for k in range(20)
        ]
        info = write(tmp_path, image, resized)
        expected = [transform(sample(info, k))["gt_seg_map"] for k in range(20)]
        assert all(map(np.array_equal, ours, expected))

    def test_label_without_a_valid_pixel_is_replaced_by_a_determined_draw(self, tmp_path):
        image, label = scene(90, 130)
        info = write(tmp_path, image, np.zeros_like(label))
        transform = LoadRandomCrop((64, 64))
        follow_ups = []
        for state in (1, 2):
            np.random.seed(state)
            assert transform(sample(info, 5)) is None
            follow_ups.append(np.random.randint(10**9))
        assert transform(sample(info, 6)) is None
        assert follow_ups[0] == follow_ups[1] != np.random.randint(10**9)

    def test_empty_crop_of_a_valid_label_stays(self, tmp_path):
        image, label = scene(90, 130)
        label[:, :120] = 0
        transform = LoadRandomCrop((64, 64), scale_range=(1, 1))
        info = write(tmp_path, image, label)
        results = [transform(sample(info, k)) for k in range(40)]
        assert None not in results
        assert any((result["gt_seg_map"] == IGNORE).all() for result in results)

    def test_nearest_indices_are_the_centres(self):
        for length, full in [(7, 7), (10, 23), (23, 10), (512, 683)]:
            expected = [int((k + 0.5) * length / full) for k in range(full)]
            assert nearest_indices(length, full, 0, full).tolist() == expected


class TestDINOv3:
    """What the augmentation of DINOv3's linear segmentation has beside the paper's."""

    @pytest.mark.parametrize("size", [(90, 130), (200, 70)])
    def test_cover_is_a_factor_of_the_short_side(self, tmp_path, size):
        transform = LoadRandomCrop((64, 64), scale_relative_to="cover", distortion=None)
        info = write(tmp_path, *scene(*size))
        drawn = []
        for position in range(200):
            factors = transform(sample(info, position))["scale_factor"]
            shorts = [factor * side for factor, side in zip(factors, size[::-1], strict=True)]
            drawn.append(min(shorts))
            assert max(shorts) / min(shorts) == pytest.approx(max(size) / min(size), rel=0.05)
        assert 32 <= min(drawn) < 38
        assert 122 < max(drawn) <= 128

    def test_crops_of_one_class_are_drawn_again(self, tmp_path):
        """A band of the second class: what a crop holds of it, by mmseg's own rule."""
        image, label = scene(120, 200)
        label[:] = 3
        label[:, 150:] = 7
        info = write(tmp_path, image, label)
        plain = LoadRandomCrop((64, 64), distortion=None, scale_range=(1, 1))
        chosen = LoadRandomCrop((64, 64), distortion=None, scale_range=(1, 1), max_class_share=0.75)

        def shares(transform):
            found = []
            for position in range(150):
                crop = transform(sample(info, position))["gt_seg_map"]
                counts = np.unique(crop[crop != IGNORE], return_counts=True)[1]
                found.append(counts.max() / counts.sum())
            return np.array(found)

        def mixed(values):
            return (values < 0.75).mean()

        # A place is good with probability p, so one of eleven is with 1 - (1 - p)^11.
        p = mixed(shares(plain))
        assert 0.1 < p < 0.35
        assert mixed(shares(chosen)) == pytest.approx(1 - (1 - p) ** 11, abs=0.1)

    def test_ignored_pixels_are_no_class(self, tmp_path):
        """Half of the image is not labelled, the other half is of one class: never accepted."""
        image, label = scene(64, 64)
        label[:] = 0
        label[:, 32:] = 7
        info = write(tmp_path, image, label)
        transform = LoadRandomCrop(
            (64, 64), distortion=None, scale_range=(1, 1), max_class_share=0.75
        )
        draws = []
        transform._placed = lambda rng, size, flip: (
            draws.append(size),
            LoadRandomCrop._placed(transform, rng, size, flip),
        )[1]
        transform(sample(info))
        assert len(draws) == 11

    def test_padding_is_left_to_the_preprocessor_and_is_the_mean_colour(self, tmp_path):
        info = write(tmp_path, *scene(40, 60))
        arguments = dict(crop_size=(64, 64), scale_range=(1, 1), scale_relative_to="image")
        small = LoadRandomCrop(**arguments, pad_value="mean")(sample(info))
        padded = LoadRandomCrop(**arguments)(sample(info))
        assert small["img"].shape == (40, 60, 3)
        assert small["gt_seg_map"].shape == small["pad_shape"] == (40, 60)
        assert np.array_equal(small["img"], padded["img"][:40, :60])
        assert np.array_equal(small["gt_seg_map"], padded["gt_seg_map"][:40, :60])
        mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
        preprocess = MODELS.build(
            dict(type="PaddingSegDataPreProcessor", bgr_to_rgb=True, mean=mean, std=std,
                 size=(64, 64), pad_val=0, seg_pad_val=255)
        )  # fmt: skip
        pack = TRANSFORMS.build(dict(type="PackSegInputs"))
        packed = [pack(dict(result)) for result in (small, padded)]
        batch = dict(
            inputs=[p["inputs"] for p in packed], data_samples=[p["data_samples"] for p in packed]
        )
        data = preprocess(batch, True)
        one, other = data["inputs"]
        assert one.shape == (3, 64, 64)
        torch.testing.assert_close(one[:, :40, :60], other[:, :40, :60])
        assert not one[:, 40:].any()  # 0 after normalisation
        assert not one[:, :, 60:].any()
        assert other[:, 40:].max() < -1.7  # black
        labels = [s.gt_sem_seg.data for s in data["data_samples"]]
        assert torch.equal(*labels)
        assert (labels[0][:, 40:] == 255).all()


def test_packs_for_mmseg(tmp_path):
    info = write(tmp_path, *scene(90, 130))
    result = LoadRandomCrop((64, 48))(sample(info))
    packed = TRANSFORMS.build(dict(type="PackSegInputs"))(dict(result))
    assert packed["inputs"].shape == (3, 64, 48)
    assert torch.equal(packed["inputs"], torch.from_numpy(result["img"].copy()).permute(2, 0, 1))
    assert packed["data_samples"].gt_sem_seg.data.dtype == torch.int64
    assert packed["data_samples"].ori_shape == (90, 130)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (dict(scale_relative_to="width"), "scale_relative_to is 'width'"),
        (dict(scale_range=(2, 0.5)), r"scale_range \(2, 0.5\)"),
        (dict(scale_range=(0, 1)), r"scale_range \(0, 1\)"),
        (dict(pad_value="black"), "pad_value is 'black', not 'mean' or a number"),
        (dict(max_class_share=0), "max_class_share 0 is not"),
        (dict(max_class_share=1.5), "max_class_share 1.5 is not"),
    ],
)
def test_wrong_arguments_are_refused(argument, text):
    with pytest.raises(ValueError, match=text):
        LoadRandomCrop((64, 64), **argument)

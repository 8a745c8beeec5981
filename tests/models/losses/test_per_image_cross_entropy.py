import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS


def brute_force(logits, labels, ignore=255):
    """Loop over images and pixels in Python floats."""
    losses = []
    for image, label in zip(logits.tolist(), labels.tolist(), strict=True):
        terms = []
        for y, row in enumerate(label):
            for x, target in enumerate(row):
                if target != ignore:
                    scores = [plane[y][x] for plane in image]
                    terms.append(math.log(sum(map(math.exp, scores))) - scores[target])
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return sum(losses) / len(losses)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, 6, 7, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 5, (4, 6, 7), generator=generator)
    labels[0, :, :3] = 255  # images with all, some, one and no valid pixel
    labels[2] = 255
    labels[2, 1, 1] = 3
    labels[3] = 255
    return logits, labels


def test_equals_a_loop_over_pixels(batch):
    loss = MODELS.build(dict(type="PerImageCrossEntropyLoss", loss_weight=2.0))
    assert loss(*batch).item() == pytest.approx(2 * brute_force(*batch), rel=1e-12)


def test_an_image_without_valid_pixels_gives_zero_and_a_zero_gradient(batch):
    loss = MODELS.build(dict(type="PerImageCrossEntropyLoss"))
    logits, labels = batch[0].requires_grad_(), batch[1]
    value = loss(logits[3:], labels[3:])
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_pixel_weights_scale_their_terms(batch):
    loss = MODELS.build(dict(type="PerImageCrossEntropyLoss"))
    weight = torch.full(batch[1].shape, 0.5, dtype=torch.float64)
    assert loss(*batch, weight=weight).item() == pytest.approx(0.5 * loss(*batch).item())


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_never_change_the_gradient(batch, size):
    loss = MODELS.build(dict(type="PerImageCrossEntropyLoss"))
    logits, labels = batch[0].requires_grad_(), batch[1]
    (whole,) = torch.autograd.grad(loss(logits, labels), logits)
    count = len(logits) // size
    total = sum(loss(logits[i : i + size], labels[i : i + size]) / count for i in range(0, 4, size))
    (parts,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)


class TestClassWeight:
    WEIGHT = (0.5, 2.0, 0.0, 7.0, 1.0)

    def torchs(self, logits, labels):
        """Torch's weighted mean of each image alone; 0 for one without weight."""
        weight = torch.tensor(self.WEIGHT, dtype=torch.float64)
        terms = [
            F.cross_entropy(image[None], label[None], weight, ignore_index=255)
            for image, label in zip(logits, labels, strict=True)
            if (label != 255).any()
        ]
        return sum(terms) / len(logits)

    @pytest.mark.parametrize("tiled", [False, True])
    def test_equals_torch_on_each_image(self, tiled, batch):
        loss = MODELS.build(
            dict(type="PerImageCrossEntropyLoss", class_weight=self.WEIGHT, tiled=tiled)
        )
        logits, labels = batch[0].requires_grad_(), batch[1]
        expected = self.torchs(logits, labels)
        torch.testing.assert_close(loss(logits, labels), expected, rtol=1e-12, atol=0)
        upsampled = F.interpolate(logits, scale_factor=2, mode="bilinear")
        labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
        expected = self.torchs(upsampled, labels)
        found = loss.upsampled(logits, labels)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        (gradient,) = torch.autograd.grad(expected, logits)
        torch.testing.assert_close(torch.autograd.grad(found, logits)[0], gradient)

    @pytest.mark.parametrize("tiled", [False, True])
    def test_an_image_of_classes_without_weight_gives_zero(self, tiled):
        cfg = dict(type="PerImageCrossEntropyLoss", class_weight=self.WEIGHT, tiled=tiled)
        logits = torch.randn(1, 5, 4, 4, requires_grad=True)
        loss = MODELS.build(cfg).upsampled(logits, torch.full((1, 8, 8), 2))
        loss.backward()
        assert loss.item() == 0
        assert torch.count_nonzero(logits.grad) == 0

    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_micro_batches_never_change_the_gradient(self, size, batch):
        loss = MODELS.build(dict(type="PerImageCrossEntropyLoss", class_weight=self.WEIGHT))
        logits, labels = batch[0].requires_grad_(), batch[1]
        (whole,) = torch.autograd.grad(loss(logits, labels), logits)
        parts = [loss(logits[i : i + size], labels[i : i + size]) for i in range(0, 4, size)]
        (found,) = torch.autograd.grad(sum(parts) / len(parts), logits)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)

    @pytest.mark.parametrize(
        ("weight", "text"),
        [
            ([1, -1], "numbers of 0 or more"),
            ([0, 0], "not all 0"),
            ([1, float("nan")], "numbers of 0 or more"),
            ("weights.pkl", "list of numbers"),
        ],
    )
    def test_what_is_no_weight_is_refused(self, weight, text):
        with pytest.raises(ValueError, match=text):
            MODELS.build(dict(type="PerImageCrossEntropyLoss", class_weight=weight))

    def test_weights_for_other_classes_are_refused(self, batch):
        loss = MODELS.build(dict(type="PerImageCrossEntropyLoss", class_weight=[1, 2]))
        for compute in (loss, loss.upsampled):
            with pytest.raises(ValueError, match=r"2 weights for 5 classes; give one for each"):
                compute(*batch)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("class_weight", [None, (1.0, 3.0)])
def test_one_channel_is_the_binary_cross_entropy_of_its_sigmoid(class_weight, tiled):
    logits = 3 * torch.randn(3, 1, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 2, (3, 8, 8))
    labels[0, :5] = 255
    cfg = dict(type="PerImageCrossEntropyLoss", class_weight=class_weight, tiled=tiled)
    upsampled = F.interpolate(logits, (8, 8), mode="bilinear")[:, 0]
    weight = torch.tensor(class_weight or (1.0, 1.0), dtype=torch.float64)
    expected = []
    for image, label in zip(upsampled, labels, strict=True):
        valid = label != 255
        pixel = weight[label[valid]]
        total = F.binary_cross_entropy_with_logits(
            image[valid], label[valid].double(), pixel, reduction="sum"
        )
        expected.append(total / pixel.sum())
    found = MODELS.build(cfg).upsampled(logits, labels)
    torch.testing.assert_close(found, sum(expected) / 3, rtol=1e-12, atol=0)


OVER_ALL = dict(type="PerImageCrossEntropyLoss", mean_over="all")


class TestMeanOverAllPixels:
    def test_it_is_mmseg_s(self, batch):
        theirs = MODELS.build(dict(type="mmseg.CrossEntropyLoss"))
        logits, labels = batch[0].requires_grad_(), batch[1]
        values = [MODELS.build(OVER_ALL)(logits, labels), theirs(logits, labels, ignore_index=255)]
        assert values[0].item() == pytest.approx(values[1].item(), rel=1e-8)
        gradients = [torch.autograd.grad(value, logits)[0] for value in values]
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)
        assert not gradients[0][3].any()

    def test_tile_by_tile_it_is_the_same(self, batch):
        logits, labels = batch[0].requires_grad_(), batch[1].repeat(1, 4, 3)
        tiled, whole = (MODELS.build(dict(OVER_ALL, tiled=tiled)) for tiled in (True, False))
        values = [loss.upsampled(logits, labels) for loss in (tiled, whole)]
        torch.testing.assert_close(*values, rtol=1e-12, atol=0)
        gradients = [torch.autograd.grad(value, logits)[0] for value in values]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("arguments", [dict(mean_over="any"), dict(class_weight=[1.0, 2.0])])
    def test_what_it_is_not_is_refused(self, arguments):
        with pytest.raises(ValueError, match="must be 'valid', or 'all' and no class_weight"):
            MODELS.build({**OVER_ALL, **arguments})

import math

import pytest
import torch
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

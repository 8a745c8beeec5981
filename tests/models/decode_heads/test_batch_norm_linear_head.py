"""The head of DINOv3's probe against plain torch, in float64."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn


def build(dropout_ratio=0.0):
    torch.manual_seed(0)
    head = MODELS.build(
        dict(type="BatchNormLinearHead", in_channels=8, num_classes=5, dropout_ratio=dropout_ratio)
    ).double()
    with torch.no_grad():  # weights that are not those of the beginning
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    return head


def plain(head, dropout_ratio=0.0):
    """The layers of torch that it is made of, in their order, with the same weights."""
    layers = nn.Sequential(nn.Dropout2d(dropout_ratio), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1))
    layers.double()
    layers[1].load_state_dict(head.norm.state_dict())
    layers[2].load_state_dict(head.conv_seg.state_dict())
    return layers


def features(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(count, 8, 6, 7, dtype=torch.float64, generator=generator)


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


@pytest.mark.parametrize("dropout_ratio", [0.0, 0.5])
def test_it_is_dropout_norm_and_convolution_in_training_and_evaluation(dropout_ratio):
    head = build(dropout_ratio)
    reference = plain(head, dropout_ratio)
    for step in range(3):
        outputs = []
        for module, x in ((head, (features(seed=step),)), (reference, features(seed=step))):
            torch.manual_seed(step)  # the same channels are dropped
            out = module(x)
            module.zero_grad()
            out.square().mean().backward()
            outputs.append(out)
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(
            (head.norm.weight, head.norm.bias, head.conv_seg.weight, head.conv_seg.bias),
            (reference[1].weight, reference[1].bias, reference[2].weight, reference[2].bias),
            strict=True,
        ):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    x = features(seed=9)
    torch.testing.assert_close(head.eval()((x,)), reference.eval()(x), rtol=1e-12, atol=1e-12)
    # By running statistics, each image by itself, as other images may be in its batch.
    torch.testing.assert_close(head((x[:1],)), head((x,))[:1], rtol=1e-12, atol=1e-12)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(head.norm, name), getattr(reference[1], name))


def test_it_begins_with_small_weights_and_an_identity():
    torch.manual_seed(0)
    head = MODELS.build(dict(type="BatchNormLinearHead", in_channels=2048, num_classes=64))
    head.init_weights()
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head.conv_seg.weight.mean().abs() < 1e-4
    assert not head.conv_seg.bias.any()
    assert (head.norm.weight == 1).all()
    assert not head.norm.bias.any()
    assert head.dropout.p == 0.1


def test_the_loss_is_a_mean_over_all_pixels():
    head = build()
    x = features(2)
    labels = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    labels[0, :9] = 255
    losses = head.loss((x,), samples(labels), None)
    logits = F.interpolate(plain(head)(x), (16, 16), mode="bilinear")
    expected = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / labels.numel()
    assert list(losses) == ["loss_ce"]
    torch.testing.assert_close(losses["loss_ce"], expected, rtol=1e-10, atol=0)
    # mmseg's own loss, as it is without arguments; it adds 1e-7 to the number of pixels
    theirs = MODELS.build(dict(type="mmseg.CrossEntropyLoss"))(logits, labels, ignore_index=255)
    torch.testing.assert_close(losses["loss_ce"], theirs, rtol=1e-9, atol=0)


def test_micro_batches_would_change_its_gradients():
    """So they are refused: see tests/engine/test_whole_batch.py."""
    head, x = build(), features(4)
    (whole,) = torch.autograd.grad(head((x,)).square().mean(), head.conv_seg.weight)
    parts = [
        torch.autograd.grad(head((x[i : i + 2],)).square().mean() / 2, head.conv_seg.weight)[0]
        for i in (0, 2)
    ]
    assert (sum(parts) - whole).norm() > 1e-3 * whole.norm()

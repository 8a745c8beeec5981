import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from vfm_ss.models.losses import tiled_cross_entropy as module
from vfm_ss.models.losses.tiled_cross_entropy import tiled_cross_entropy

#: (h, w) of the logits and (H, W) of the labels.
SIZES = {
    "by 16": ((4, 4), (64, 64)),
    "by 8, not square": ((4, 6), (32, 48)),
    "odd": ((5, 7), (33, 52)),
    "not a whole number": ((6, 5), (17, 23)),
    "down": ((16, 12), (5, 7)),
    "equal": ((9, 9), (9, 9)),
    "one cell": ((1, 1), (8, 5)),
}


def make(cells, size, dtype=torch.float64, classes=7, images=4):
    logits = 4 * torch.randn(images, classes, *cells, dtype=dtype)
    label = torch.randint(0, classes, (images, *size))
    label[torch.rand(label.shape) < 0.2] = 255
    label[1] = 255  # an image without and one with a single valid pixel
    label[2] = 255
    label[2, -1, -1] = 3
    return logits.requires_grad_(), label


def plain(logits, label, align_corners=False, ignore_index=255):
    """Torch's own upsampling and cross entropy, image by image."""
    upsampled = F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=align_corners)
    losses = F.cross_entropy(upsampled, label, ignore_index=ignore_index, reduction="none")
    return losses.sum((1, 2)) / (label != ignore_index).sum((1, 2)).clamp(min=1)


@pytest.mark.parametrize("tile", [1, 2**8, 2**20])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_value_and_gradient_equal_torchs(sizes, align_corners, tile, monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", tile)
    logits, label = make(*sizes)
    upstream = torch.randn(len(logits), dtype=torch.float64)
    expected = plain(logits, label, align_corners)
    actual = tiled_cross_entropy(logits, label, align_corners=align_corners)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
    (expected_gradient,) = torch.autograd.grad(expected @ upstream, logits)
    (gradient,) = torch.autograd.grad(actual @ upstream, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)
    assert actual[1] == 0
    assert torch.count_nonzero(gradient[1]) == 0


@pytest.mark.parametrize("sizes", [SIZES["by 16"], SIZES["odd"]])
def test_float32_stays_within_rounding_of_float64(sizes):
    logits, label = make(*sizes, dtype=torch.float32, classes=150)
    exact = logits.detach().double().requires_grad_()
    expected, actual = plain(exact, label), tiled_cross_entropy(logits, label)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-7)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), exact)
    (gradient,) = torch.autograd.grad(actual.sum(), logits)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-7)


def test_logits_hundreds_apart_keep_their_loss():
    """A class at half the distance between two cells of opposite certainty has probability 1/2."""
    logits = torch.tensor([[500.0, 0.0], [0.0, 500.0]])[None, :, None, :].requires_grad_()
    label = torch.zeros(1, 1, 5, dtype=torch.long)
    value = tiled_cross_entropy(logits, label)
    torch.testing.assert_close(value, plain(logits, label))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(gradient).all()


def test_half_precision_logits_and_autocast_give_a_float32_loss():
    logits, label = make(*SIZES["by 16"], dtype=torch.float32)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = tiled_cross_entropy(half, label)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, plain(half.float(), label))
    (gradient,) = torch.autograd.grad(value.sum(), half)
    assert gradient.dtype == torch.bfloat16


def test_nothing_is_kept_without_gradients():
    logits, label = make(*SIZES["odd"])
    with torch.no_grad():
        value = tiled_cross_entropy(logits, label)
    assert value.grad_fn is None
    torch.testing.assert_close(value, plain(logits, label).detach())


def test_another_ignored_label_and_narrow_integers():
    logits, label = make(*SIZES["odd"])
    label[label == 255] = 0
    value = tiled_cross_entropy(logits, label.int(), ignore_index=0)
    torch.testing.assert_close(value, plain(logits, label, ignore_index=0))


def test_logits_and_labels_of_different_batches_are_refused():
    with pytest.raises(ValueError, match=r"same images, got \(2, 3, 4, 4\) and \(1, 8, 8\)"):
        tiled_cross_entropy(torch.zeros(2, 3, 4, 4), torch.zeros(1, 8, 8).long())


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_head_trains_alike_with_tiled_and_plain_loss(align_corners):
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 64, 64)))) for _ in range(3)
    ]
    samples[1].gt_sem_seg.data[:] = 255
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    results = []
    for tiled in (True, False):
        torch.manual_seed(0)
        loss = dict(type="PerImageCrossEntropyLoss", loss_weight=0.4, tiled=tiled)
        cfg = dict(in_channels=8, num_classes=5, loss_decode=loss, align_corners=align_corners)
        head = MODELS.build(dict(type="LinearHead", **cfg)).double()
        value = head.loss((x,), samples, None)["loss_ce"]
        results.append((value, *torch.autograd.grad(value, list(head.parameters()))))
    for tiled, plain_one in zip(*results, strict=True):
        torch.testing.assert_close(tiled, plain_one, rtol=1e-10, atol=1e-14)

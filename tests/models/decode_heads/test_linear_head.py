import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MODELS.build(dict(type="LinearHead", in_channels=8, num_classes=5)).double()


def test_it_is_a_linear_layer_upsampled_bilinearly(head):
    linear = nn.Linear(8, 5).double()
    linear.weight.data = head.conv_seg.weight[:, :, 0, 0].data
    linear.bias.data = head.conv_seg.bias.data
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    expected = linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(head((x,)), expected)
    metas = [{"img_shape": (32, 48)}] * 2
    upsampled = F.interpolate(expected, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head.predict((x,), metas, None), upsampled)
    assert sum(p.numel() for p in head.parameters()) == 8 * 5 + 5


def test_it_starts_as_torchs_linear_layer_does():
    head = MODELS.build(dict(type="LinearHead", in_channels=4096, num_classes=64))
    head.init_weights()
    bound = 4096**-0.5
    for parameter in (head.conv_seg.weight, head.conv_seg.bias):
        assert parameter.abs().max() <= bound
    assert head.conv_seg.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_the_loss_is_that_of_the_upsampled_logits(head):
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 5, (2, 16, 16))
    labels[1, :9] = 255
    losses = head.loss((x,), samples(labels), None)
    logits = F.interpolate(head((x,)), (16, 16), mode="bilinear", align_corners=False)
    expected = [
        F.cross_entropy(logits[i : i + 1], labels[i : i + 1], ignore_index=255) for i in (0, 1)
    ]
    assert list(losses) == ["loss_ce"]
    torch.testing.assert_close(losses["loss_ce"], sum(expected) / 2)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_gradients_are_the_same_for_any_micro_batch_of_sixteen(head, size):
    x = torch.randn(16, 8, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 5, (16, 8, 8))
    labels[torch.rand(16, 8, 8) < torch.linspace(0, 1, 16)[:, None, None]] = 255
    labels[15] = 255
    for start in range(0, 16, size):
        stop = start + size
        loss = head.loss((x[start:stop],), samples(labels[start:stop]), None)["loss_ce"]
        (loss * size / 16).backward()
    logits = F.interpolate(head((x,)), (8, 8), mode="bilinear", align_corners=False)
    terms = [
        F.cross_entropy(logits[i : i + 1], labels[i : i + 1], ignore_index=255) for i in range(15)
    ]
    expected = torch.autograd.grad(sum(terms) / 16, list(head.parameters()))
    for parameter, gradient in zip(head.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("names", "sampler"),
    [
        (["CrossEntropyLoss", "DiceLoss"], None),
        (["CrossEntropyLoss"], dict(type="OHEMPixelSampler", thresh=0.7, min_kept=10)),
    ],
)
def test_it_works_behind_any_mmseg_backbone_with_mmsegs_losses_and_sampler(names, sampler):
    model = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=dict(type="ResNet", depth=18),
            decode_head=dict(
                type="LinearHead",
                in_channels=512,
                num_classes=4,
                in_index=3,
                loss_decode=[dict(type=name, loss_name=f"loss_{name}") for name in names],
                sampler=sampler,
            ),
        )
    )
    labels = torch.randint(0, 4, (2, 64, 64))
    losses = model.loss(torch.randn(2, 3, 64, 64), samples(labels))
    assert set(losses) == {f"decode.loss_{name}" for name in names}
    sum(losses.values()).backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0

"""Losses and norms that mix the images of a micro-batch are found before training."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from vfm_ss.compat.stack import installed
from vfm_ss.engine.head_checks import check_heads

# mmsegmentation 1.2 fails on class weights where labels are ignored.
WEIGHTS_WORK = installed("mmseg")[0] != "mmsegmentation"
BINARY = dict(num_classes=2, out_channels=1, threshold=0.5)


def segmentor(loss=None, norm=False, auxiliary=(), **head):
    """A model of heads alone: mmseg's FCN head, or ours where no loss is given."""
    cfg = dict(in_channels=4, channels=4, num_classes=3, num_convs=int(norm), kernel_size=1)
    cfg |= dict(
        dropout_ratio=0,
        type="FCNHead",
        concat_input=False,
        norm_cfg=dict(type="BN") if norm else None,
    )
    if loss is None:
        cfg = dict(type="LinearHead", in_channels=4, num_classes=3)
    else:
        cfg["loss_decode"] = loss
    model = nn.Module()
    model.decode_head = MODELS.build({**cfg, **head})
    if auxiliary:
        model.auxiliary_head = nn.ModuleList(
            MODELS.build({**cfg, "loss_decode": each}) for each in auxiliary
        )
    return model


CE = dict(type="CrossEntropyLoss")
MIXING = {
    **({"class weights": dict(CE, class_weight=[1.0, 2.0, 5.0])} if WEIGHTS_WORK else {}),
    "mean over valid pixels": dict(CE, avg_non_ignore=True),
    "sigmoid, over valid pixels": dict(CE, use_sigmoid=True, avg_non_ignore=True),
    "Lovasz": dict(type="LovaszLoss", loss_type="multi_class", reduction="none"),
    "sum": dict(CE, reduction="sum"),
}
ALONE = {
    "ours": None,
    "ours, weighted": dict(type="PerImageCrossEntropyLoss", class_weight=[1, 0.5, 3]),
    "mean over all pixels": CE,
    "sigmoid": dict(CE, use_sigmoid=True),
    "Lovasz of each image": dict(type="LovaszLoss", loss_type="multi_class", per_image=True),
    "Tversky": dict(type="TverskyLoss"),
    "dice": dict(type="DiceLoss"),
    "two": [CE, dict(type="PerImageCrossEntropyLoss", loss_name="loss_b")],
}


def truly_mixes(head):
    """Whether the weights' gradients of a step of two images change with the micro-batch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    labels = torch.randint(0, head.num_classes, (2, 1, 8, 8), generator=generator)
    labels[0, :, :6] = 255
    labels[1, :, :, :2] = 0
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]

    def gradient(images, share):
        losses = head.loss((x[images],), samples[images], None)
        total = sum(value.mean() for key, value in losses.items() if "loss" in key)
        return torch.autograd.grad(share * total, head.conv_seg.weight)[0]

    whole = gradient(slice(0, 2), 1)
    parts = gradient(slice(0, 1), 0.5) + gradient(slice(1, 2), 0.5)
    return bool((whole - parts).norm() > 1e-3 * whole.norm())


@pytest.mark.parametrize("loss", MIXING.values(), ids=MIXING.keys())
def test_a_loss_that_mixes_images_is_found(loss):
    model = segmentor(loss)
    assert truly_mixes(model.decode_head)
    (found,) = check_heads(model)
    assert found == f"decode_head's loss ({loss['type']})"


@pytest.mark.parametrize("loss", ALONE.values(), ids=ALONE.keys())
def test_a_loss_of_each_image_is_not(loss):
    model = segmentor(loss)
    assert not truly_mixes(model.decode_head)
    assert check_heads(model) == []


def test_auxiliary_heads_and_samplers_are_looked_at():
    (found,) = check_heads(segmentor(CE, auxiliary=[CE, MIXING["Lovasz"]]))
    assert found == "auxiliary_head[1]'s loss (LovaszLoss)"
    sampler = dict(type="OHEMPixelSampler", thresh=0.7, min_kept=10)
    (found,) = check_heads(segmentor(CE, sampler=sampler))
    assert found == "decode_head's sampler (OHEMPixelSampler)"


class Frozen(nn.Module):
    """Keeps its norm in evaluation, as ResNet with norm_eval."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(4)

    def train(self, mode=True):
        super().train(mode)
        self.bn.eval()
        return self


def test_batch_norm_counts_where_it_trains():
    model = segmentor(CE, norm=True)
    assert check_heads(model) == ["batch norm (decode_head.convs.0.bn)"]
    model = segmentor(CE)
    model.backbone = Frozen()
    assert check_heads(model) == []
    model.neck = nn.Sequential(nn.SyncBatchNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4)).eval()
    assert check_heads(model) == ["batch norm (neck.0 and 1 more)"]
    assert not model.neck.training or model.training


def test_a_loss_that_cannot_be_tried_is_taken_to_mix():
    class Odd(MODELS.get("FCNHead")):
        def loss_by_feat(self, seg_logits, batch_data_samples):
            return {"loss": seg_logits[1].sum() + len(batch_data_samples[0].depth_map)}

    model = segmentor(CE)
    model.decode_head.__class__ = Odd
    (found,) = check_heads(model)
    assert found.startswith("decode_head's loss (CrossEntropyLoss; not tried: ")


def test_nothing_is_left_behind():
    model = segmentor([CE, MIXING["Lovasz"] | dict(loss_name="loss_l")], norm=True).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_heads(model)
    assert torch.rand(1) == expected
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("loss", [None, dict(CE, use_sigmoid=True)], ids=["ours", "mmseg's"])
def test_one_channel_with_a_sigmoid_loss_is_fine(loss):
    assert check_heads(segmentor(loss, **BINARY)) == []


def test_one_channel_with_a_softmax_is_refused():
    with pytest.raises(ValueError, match=r"out_channels=1 does not go with its loss \(CrossEntrop"):
        check_heads(segmentor(CE, **BINARY))


def test_one_class_is_refused():
    for model in (segmentor(num_classes=1), segmentor(CE, num_classes=1)):
        with pytest.raises(ValueError, match=r"decode_head\.num_classes=1: .*num_classes=2"):
            check_heads(model)


def test_a_loss_without_a_gradient_is_refused():
    losses = [dict(CE, loss_weight=0.0)]
    if WEIGHTS_WORK:
        losses.append(dict(CE, class_weight=[0.0, 0.0, 0.0]))
    for loss in losses:
        with pytest.raises(ValueError, match=r"has no gradient for 3 classes"):
            check_heads(segmentor(loss))

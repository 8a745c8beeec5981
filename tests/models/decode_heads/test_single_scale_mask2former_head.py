"""The head inside mmseg's EncoderDecoder, and its errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine import Config, ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.apis import inference_model
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from vfm_ss.models.decode_heads import SingleScaleMask2FormerHead

SMALL = {
    "in_channels": 12,
    "num_classes": 5,
    "channels": 32,
    "num_queries": 8,
    "num_layers": 2,
    "num_heads": 4,
    "feedforward_channels": 32,
    "loss_decode": {"type": "Mask2FormerLoss", "num_points": 256},
}


@MODELS.register_module(name="Mask2FormerTestBackbone", force=True)
class TwoMaps(nn.Module):
    """A random patch embedding with two feature maps of different widths."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 20, 4, 4)

    def forward(self, images):
        features = self.embed(images)
        return features[:, :8], features[:, 8:]


def make_head(**kwargs):
    torch.manual_seed(0)
    return SingleScaleMask2FormerHead(**{**SMALL, **kwargs})


def make_segmentor(test_cfg=None, **head):
    torch.manual_seed(0)
    return MODELS.build(
        {
            "type": "EncoderDecoder",
            "data_preprocessor": {
                "type": "mmseg.SegDataPreProcessor",
                "mean": [127.5] * 3,
                "std": [127.5] * 3,
                "size": (32, 48),
            },
            "backbone": {"type": "Mask2FormerTestBackbone"},
            "decode_head": {"type": "SingleScaleMask2FormerHead", **SMALL, **head},
            "test_cfg": ConfigDict(test_cfg or {"mode": "whole"}),
        }
    )


def make_data(num_images=2, height=32, width=48):
    """Make images whose colour tells the class: vertical stripes, the last one ignored."""
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10]])
    samples, inputs = [], []
    for i in range(num_images):
        labels = ((torch.arange(width) // 12 + i) % 4).expand(height, width).clone()
        inputs.append(colours[labels].permute(2, 0, 1).to(torch.uint8))
        labels[:, -4:] = 255
        meta = {"img_shape": (height, width), "ori_shape": (height, width), "img_path": f"{i}.jpg"}
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels[None]), metainfo=meta))
    return {"inputs": inputs, "data_samples": samples}


def copy(data):
    return {
        "inputs": list(data["inputs"]),
        "data_samples": [sample.clone() for sample in data["data_samples"]],
    }


def test_learns_predicts_and_infers_in_mmseg():
    """Train, validation, tensor and inference_model, with the same answers."""
    segmentor = make_segmentor()
    data = make_data()
    optimizer = OptimWrapper(torch.optim.AdamW(segmentor.parameters(), lr=3e-3))
    history = [segmentor.train_step(copy(data), optimizer) for _ in range(60)]
    assert set(history[0]) == {
        "loss", "decode.loss_cls", "decode.loss_mask", "decode.loss_dice"
    }  # fmt: skip
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]

    segmentor.eval()
    with torch.no_grad():
        results = segmentor.val_step(copy(data))
    for result in results:
        labels, predicted = result.gt_sem_seg.data, result.pred_sem_seg.data
        assert (predicted == labels)[labels != 255].float().mean() > 0.9

    pipeline = [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
    segmentor.cfg = Config({"test_pipeline": pipeline})
    image = data["inputs"][1].permute(1, 2, 0).numpy()
    with DefaultScope.overwrite_default_scope("mmseg"):
        inferred = inference_model(segmentor, np.ascontiguousarray(image))
    assert torch.equal(inferred.pred_sem_seg.data, results[1].pred_sem_seg.data)

    batch = segmentor.data_preprocessor(copy(data), False)
    class_logits, mask_logits = segmentor(**batch, mode="tensor")
    assert class_logits.shape == (3, 2, 8, 6)
    assert mask_logits.shape == (3, 2, 8, 8, 12)


def test_prediction_is_mask_times_class_probability():
    head = make_head().eval()
    features = torch.randn(2, 12, 3, 5)
    metas = [{"img_shape": torch.Size((24, 40))}] * 2
    with torch.no_grad():
        scores = head.predict([features], metas, None)
        class_logits, mask_logits = (logits[-1] for logits in head([features]))
    masks = F.interpolate(mask_logits, (24, 40), mode="bilinear").sigmoid()
    classes = class_logits.softmax(-1)
    expected = torch.zeros(2, 5, 24, 40)
    for query in range(8):
        for label in range(5):
            expected[:, label] += masks[:, query] * classes[:, query, label, None, None]
    torch.testing.assert_close(scores, expected)


def test_sliding_windows_average_predictions():
    """A window at a time gives what the head gives on that window alone."""
    slide = {"mode": "slide", "crop_size": (32, 32), "stride": (32, 32)}
    segmentor = make_segmentor(slide).eval()
    images = torch.randn(1, 3, 32, 64)
    metas = [{"ori_shape": (32, 64), "img_shape": (32, 64)}]
    with torch.no_grad():
        scores = segmentor.inference(images, metas)
        for start in (0, 32):
            features = segmentor.extract_feat(images[..., start : start + 32])
            part = segmentor.decode_head.predict(features, [{"img_shape": (32, 32)}], None)
            torch.testing.assert_close(scores[..., start : start + 32], part)


def test_feature_map_is_chosen_by_in_index():
    head = make_head(in_index=0)
    chosen, other = torch.randn(1, 12, 2, 2), torch.randn(1, 99, 4, 4)
    for ours, alone in zip(head([chosen, other]), head([chosen]), strict=True):
        assert torch.equal(ours, alone)


def test_every_parameter_has_a_gradient_even_without_targets():
    segmentor = make_segmentor()
    data = make_data()
    for sample in data["data_samples"]:
        sample.gt_sem_seg.data.fill_(255)
    segmentor.train_step(data, OptimWrapper(torch.optim.SGD(segmentor.parameters(), lr=0.0)))
    loss = sum(
        segmentor.loss(**segmentor.data_preprocessor(copy(data), True)).values()
    )  # fmt: skip
    loss.backward()
    assert [n for n, p in segmentor.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in segmentor.parameters())


def test_parameter_count_at_full_size():
    """101 M with DINOv2-B (paper, Table 3), of which the head has 14.7 M."""
    config = {
        "type": "VFMEncoderDecoder",
        "backbone": {"type": "DINOv2", "img_size": 512, "pretrained": False},
        "decode_head": {"type": "SingleScaleMask2FormerHead", "num_classes": 150},
    }
    with torch.device("meta"):
        segmentor = MODELS.build(config)
    trainable = [p.numel() for p in segmentor.parameters() if p.requires_grad]
    assert round(sum(trainable) / 1e6) == 101
    assert sum(p.numel() for p in segmentor.decode_head.parameters()) == 14_693_527


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_under_autocast_is_finite(dtype):
    segmentor = make_segmentor()
    batch = segmentor.data_preprocessor(make_data(), True)
    with torch.autocast("cpu", dtype=dtype):
        losses = segmentor.loss(**batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in segmentor.parameters())


def test_step_prepared_for_other_samples_is_not_used():
    """Samples of an earlier step, or without one, are normalised over themselves."""
    head = make_head(num_classes=5).double()
    head.loss_decode.mask_weight = head.loss_decode.dice_weight = 0
    features = torch.randn(2, 12, 8, 12).double()
    plain = head.loss([features], make_data()["data_samples"], None)["loss_cls"]
    samples = make_data()["data_samples"]
    head.begin_step(samples, num_micro_batches=4, step=0)
    torch.testing.assert_close(head.loss([features], samples, None)["loss_cls"], 4 * plain)
    head.begin_step(make_data(1)["data_samples"], num_micro_batches=1, step=1)
    torch.testing.assert_close(head.loss([features], samples, None)["loss_cls"], plain)


def test_prepared_step_survives_the_data_preprocessor():
    segmentor = make_segmentor()
    head, data = segmentor.decode_head, make_data()
    head.loss_decode.mask_weight = head.loss_decode.dice_weight = 0
    plain = segmentor.loss(**segmentor.data_preprocessor(copy(data), True))
    head.begin_step(data["data_samples"], num_micro_batches=4, step=0)
    prepared = segmentor.loss(**segmentor.data_preprocessor(copy(data), True))
    torch.testing.assert_close(prepared["decode.loss_cls"], 4 * plain["decode.loss_cls"])


def test_step_finds_unknown_labels_before_the_forward_pass():
    data = make_data()
    data["data_samples"][1].gt_sem_seg.data[0, 3, 4] = 17
    with pytest.raises(
        ValueError, match=r"^label 17 in 1\.jpg, but num_classes=5 allows 0 to 4 .*$"
    ):
        make_head().begin_step(data["data_samples"], 1, 0)


def test_unknown_labels_in_training_name_the_label_file():
    data = make_data()
    data["data_samples"][0].gt_sem_seg.data[0, 0, 0] = 5
    data["data_samples"][0].set_metainfo({"seg_map_path": "labels/0.png"})
    segmentor = make_segmentor()
    with pytest.raises(ValueError, match=r"^label 5 in labels/0\.png of 0\.jpg, .*$"):
        segmentor.loss(**segmentor.data_preprocessor(data, True))


@pytest.mark.parametrize(
    ("inputs", "in_index", "message"),
    [
        ([torch.zeros(1, 384, 2, 2)], -1, r"^feature map -1 has 384 channels.*in_channels=384$"),
        ([torch.zeros(1, 12, 2, 2)], 3, r"^in_index=3, but the backbone gives 1 feature map.*$"),
    ],
)
def test_wrong_features_are_refused(inputs, in_index, message):
    with pytest.raises(ValueError, match=message):
        make_head(in_index=in_index)(inputs)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"in_index": [0, 1]}, r"takes one feature map, got in_index=\[0, 1\]"),
        ({"in_channels": [3, 4]}, r"takes one feature map.*in_channels=\[3, 4\]"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"channels": 30}, "channels=30 must be a multiple of 4 and of num_heads=4"),
        ({"normalize": "step"}, "normalize must be 'batch' or 'image', got 'step'"),
        ({"loss_decode": {"type": "CrossEntropyLoss"}}, "must be a Mask2FormerLoss, got .*Cross"),
    ],
)
def test_wrong_arguments_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        make_head(**argument)

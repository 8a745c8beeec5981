"""Training steps and evaluation beside numbers that the authors' code gave on the same inputs.

`make_reference.py` made them with https://github.com/tue-mps/benchmark-vfm-ss at f3202e3.
"""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS, PARAM_SCHEDULERS
from mmseg.structures import SegDataSample

import vfm_ss.models.losses.mask2former_loss as mask2former_loss
import vfm_ss.models.losses.mask2former_points as mask2former_points
from vfm_ss.engine.optim_constructor import GroupedOptimWrapperConstructor
from vfm_ss.evaluation.miou import MeanIoUMetric

HERE = Path(__file__).parent
BASE = HERE.parents[1] / "configs" / "_base_"
REFERENCE = json.loads((HERE / "reference.json").read_text(encoding="utf-8"))
inputs = SimpleNamespace(**runpy.run_path(str(HERE / "inputs.py")))

HEADS = "linear", "mask2former"
# Their no-object weight is 0.1 in float32.
TOLERANCE = {"linear": 1e-9, "mask2former": 1e-7}
MICRO_BATCH = 4  # theirs is 1


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    """Let the data preprocessor, too, compute in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def build(head):
    cfg = Config.fromfile(BASE / "models" / f"{head}.py").model
    cfg.backbone = {
        "type": "TimmViT",
        "model_name": "vit_tiny_patch16_224",
        "img_size": (inputs.CROP, inputs.CROP),
        "patch_size": inputs.PATCH,
        "pretrained": False,
        **inputs.VIT,
    }
    cfg.decode_head.num_classes = inputs.CLASSES
    if head == "mask2former":
        points = {"num_points": inputs.POINTS, "oversample_ratio": inputs.OVERSAMPLE}
        cfg.decode_head.update(
            num_queries=inputs.DECODER["queries"],
            channels=inputs.DECODER["channels"],
            num_layers=inputs.DECODER["layers"],
            num_heads=inputs.DECODER["heads"],
            normalize="image",
            loss_decode={"type": "Mask2FormerLoss", **points},
        )
    model = MODELS.build(cfg).double()
    assert tuple(model.backbone.mean) == inputs.MEAN
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(inputs.weight(name, tuple(parameter.shape))))
    return model


def sample(pixels, labels):
    """Return what the dataloader gives: the image as BGR, and its labels."""
    size = labels.shape
    data_sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size})
    data_sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None].long())
    return torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1), data_sample


class FixedPoints:
    """In place of uniform_points, the points that the authors' code was given."""

    def __init__(self):
        self.images, self.rows = {}, {}

    def __call__(self, shape, like, generator):
        image = self.images.setdefault(generator.initial_seed(), len(self.images))
        if len(shape) == 1:
            points = inputs.points(image, 0, 0, *shape)
        else:
            rows, count = shape
            first = self.rows.get(image, 0)
            kind = 1 if count > inputs.POINTS else 2
            drawn = [inputs.points(image, kind, first + row, count) for row in range(rows)]
            points = np.stack(drawn)
            if kind == 2:
                self.rows[image] = first + rows
        return 2 * torch.from_numpy(points).to(like) - 1


def train(model):
    """Make the steps with the benchmark's optimiser and schedule; return their losses."""
    schedule = Config.fromfile(BASE / "schedules" / "schedule_40k.py")
    cfg = schedule.optim_wrapper
    parts = inputs.BATCH // MICRO_BATCH
    wrapper = GroupedOptimWrapperConstructor(
        {"type": "OptimWrapper", "optimizer": cfg.optimizer, "accumulative_counts": parts},
        cfg.paramwise_cfg,
    )(model)
    wrapper.initialize_count_status(model, 0, parts * inputs.SCHEDULE)
    decay = PARAM_SCHEDULERS.build(
        {**schedule.param_scheduler, "optimizer": wrapper, "end": inputs.SCHEDULE}
    )
    losses = []
    for step in range(inputs.STEPS):
        images, samples = zip(
            *[sample(*inputs.crop(step, index)) for index in range(inputs.BATCH)], strict=True
        )
        if hasattr(model.decode_head, "begin_step"):
            model.decode_head.begin_step(samples, parts, step, seed=0)
        losses.append(0.0)
        for start in range(0, inputs.BATCH, MICRO_BATCH):
            part = slice(start, start + MICRO_BATCH)
            data = {"inputs": list(images[part]), "data_samples": list(samples[part])}
            data = model.data_preprocessor(data, True)
            loss = sum(model(**data, mode="loss").values())
            losses[-1] += loss.item() * MICRO_BATCH / inputs.BATCH
            wrapper.backward(wrapper.scale_loss(loss))
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        wrapper.step()
        wrapper.zero_grad()
        decay.step()
    return losses, gradients


def assert_same(tensors, reference, tolerance):
    assert tensors.keys() == reference.keys()
    floor = 1e-12 * max(norm for norm, _ in reference.values())
    for name, tensor in tensors.items():
        norm = reference[name][0]
        found = inputs.projections(name, tensor.detach().numpy())
        assert found == pytest.approx(reference[name], rel=0, abs=tolerance * norm + floor), name


@pytest.mark.parametrize("head", HEADS)
def test_training_steps_are_the_authors(head, monkeypatch):
    """Losses, gradients and weights of steps of 16 images, whatever the micro-batch."""
    points = FixedPoints()
    monkeypatch.setattr(mask2former_loss, "uniform_points", points)
    monkeypatch.setattr(mask2former_points, "uniform_points", points)
    reference, tolerance = REFERENCE[head]["training"], TOLERANCE[head]
    model = build(head)
    losses, gradients = train(model)
    assert losses == pytest.approx(reference["losses"], rel=tolerance)
    assert_same(gradients, reference["last_gradients"], 10 * tolerance)
    assert_same(dict(model.named_parameters()), reference["weights"], tolerance)


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_is_the_authors(head):
    """Every pixel of windows over squares, landscapes and portraits, and the IoU of each class."""
    reference = REFERENCE[head]["evaluation"]
    expected = np.array(reference["confusion"])
    assert (expected.sum(0) > 0).sum() >= 6, "several classes are predicted"
    assert (expected.sum(1) > 0).all(), "every class is present"
    model = build(head).eval()
    metric = MeanIoUMetric(ignore_index=inputs.IGNORE)
    metric.dataset_meta = {"classes": [str(k) for k in range(inputs.CLASSES)]}
    confusion = np.zeros_like(expected)
    images = [sample(*inputs.image(k, *size)) for k, size in enumerate(inputs.SIZES)]
    for image, data_sample in images:
        batch = {"inputs": [image], "data_samples": [data_sample]}
        (found,) = model.test_step(batch)
        metric.process(batch, [found.to_dict()])
        label = found.gt_sem_seg.data.flatten()
        valid = label != inputs.IGNORE
        pairs = label[valid] * inputs.CLASSES + found.pred_sem_seg.data.flatten()[valid]
        confusion += np.bincount(pairs, minlength=inputs.CLASSES**2).reshape(expected.shape)
    assert np.array_equal(confusion, expected)
    scores = metric.evaluate(len(images))
    iou = [value / 100 for value in metric.per_class["IoU"].values()]
    assert iou == pytest.approx(reference["iou"], abs=1e-7)
    assert scores["mIoU"] / 100 == pytest.approx(np.mean(reference["iou"]), abs=1e-7)

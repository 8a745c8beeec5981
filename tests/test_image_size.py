"""The image size is stated once, in the backbone: every transform without a size gets it."""

import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmengine.runner import IterBasedTrainLoop
from mmseg.apis import inference_model, init_model
from mmseg.registry import DATASETS, TRANSFORMS
from torch import nn
from torch.utils.data import DataLoader

from vfm_ss.datasets.transforms import LoadRandomCrop, ResizeToCover
from vfm_ss.engine import ImageSizeHook, OptimStepTrainLoop
from vfm_ss.image_size import fill_image_size, model_image_size


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


PIPELINE = [dict(type="LoadImage"), dict(type="ResizeToCover"), dict(type="PackSegInputs")]
NESTED = [
    dict(type="LoadImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmseg.ResizeToCover"), dict(type="ResizeToCover", size=(48, 48))],
            [dict(type="RandomApply", transforms=[dict(type="ResizeToCover", size=None)])],
            [dict(type="PackSegInputs")],
        ],
    ),
]


def dataset(**changes):
    return DATASETS.build(dict(type="BaseSegDataset", pipeline=PIPELINE, lazy_init=True, **changes))


def test_built_transforms_are_found_wherever_they_are():
    datasets = [dataset(), dataset(), dataset()]
    repeated = RepeatDataset(datasets[0], 2, lazy_init=True)
    loader = DataLoader([1])
    loader.__dict__["dataset"] = ConcatDataset(datasets[1:], lazy_init=True)
    assert fill_image_size([repeated, loader], (64, 32)) == {(64, 32)}
    assert [d.pipeline.transforms[1].size for d in datasets] == [(64, 32)] * 3

    tta = Compose(NESTED)
    assert fill_image_size(tta, (64, 32)) == {(64, 32), (48, 48)}
    found = [sub.transforms[0].size for sub in tta.transforms[1].subroutines]
    assert found == [(64, 32), (48, 48)]
    for subroutine in tta.transforms[1].subroutines:
        assert subroutine.transforms[1].transforms.transforms[0].size == (64, 32)


def test_a_config_is_filled_as_what_it_builds():
    cfg = ConfigDict(
        batch_size=2,
        dataset=dict(
            type="RepeatDataset",
            dataset=dict(type="ConcatDataset", datasets=[dict(pipeline=PIPELINE)] * 2),
        ),
    )
    assert fill_image_size(cfg, (64, 32)) == {(64, 32)}
    for inner in cfg.dataset.dataset.datasets:
        assert inner.pipeline[1] == dict(type="ResizeToCover", size=(64, 32))
        assert inner.pipeline[0] == dict(type="LoadImage")
    nested = ConfigDict(pipeline=NESTED)
    assert fill_image_size(nested, (64, 32)) == {(64, 32), (48, 48)}
    built = Compose(nested.pipeline)
    assert fill_image_size(built, (8, 8)) == {(64, 32), (48, 48)}  # nothing was left open


def test_a_stated_size_stays_and_no_size_changes_nothing():
    transforms = [LoadRandomCrop((48, 64)), ResizeToCover()]
    assert fill_image_size(transforms, None) == {(48, 64)}
    assert transforms[1].size is None
    assert fill_image_size(transforms, (32, 32)) == {(48, 64), (32, 32)}
    assert transforms[0].crop_size == (48, 64)


@pytest.mark.parametrize(
    ("name", "argument"), [("LoadRandomCrop", "crop_size"), ("ResizeToCover", "size")]
)
def test_no_size_at_all_is_one_line_with_the_remedy(name, argument):
    transform = TRANSFORMS.build(dict(type=name))
    remedy = (
        rf"{name} has no {argument}: state {argument}=\(height, width\).*img_size.*ImageSizeHook"
    )
    with pytest.raises(ValueError, match=remedy) as caught:
        transform(dict(img=np.zeros((4, 4, 3), np.uint8), img_path="a.png", seg_map_path="a.png"))
    assert "\n" not in str(caught.value)


class Wrapped(nn.Module):
    """What a distributed wrapper and a model with test-time augmentation look like."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def test_the_size_of_a_model_is_its_backbones():
    model = nn.Module()
    assert model_image_size(model) is None
    model.backbone = nn.Module()
    assert model_image_size(model) is None
    model.backbone.img_size = 64
    assert model_image_size(model) == (64, 64)
    model.backbone.img_size = [64, 32]
    assert model_image_size(Wrapped(Wrapped(model))) == (64, 32)


def test_mmsegs_inference_needs_no_stated_size(tmp_path):
    backbone = dict(
        type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=32, pretrained=False
    )
    model = dict(
        type="VFMEncoderDecoder",
        backbone=backbone,
        decode_head=dict(type="LinearHead", num_classes=3),
        test_cfg=dict(mode="slide"),
    )
    loader = dict(dataset=dict(pipeline=PIPELINE))
    cfg = Config(dict(model=model, test_pipeline=PIPELINE, test_dataloader=loader))
    built = init_model(cfg, device="cpu")
    for pipeline in (built.cfg.test_pipeline, built.cfg.test_dataloader.dataset.pipeline):
        assert pipeline[1].size == (32, 32)
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.zeros((40, 60, 3), np.uint8))
    built.dataset_meta = {}
    assert inference_model(built, path).pred_sem_seg.shape == (40, 60)


@pytest.mark.parametrize("crop", [None, (64, 64), (32, 64)])
def test_a_training_crop_that_is_not_the_models_is_warned_of(crop, caplog):
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.img_size = (64, 64)
    transform, logger = LoadRandomCrop(crop), logging.getLogger("image_size")
    runner = SimpleNamespace(
        model=Wrapped(model), train_dataloader=[transform], logger=logger, cfg=ConfigDict()
    )
    ImageSizeHook().before_train(runner)
    assert transform.crop_size == (crop or (64, 64))
    warnings = [record.getMessage() for record in caplog.records]
    if crop != (32, 64):
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert "crop is (32, 64), but model.backbone.img_size is (64, 64)" in warnings[0]


def test_validation_and_test_get_their_size_from_the_hook():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.img_size = (64, 32)
    val, test = ResizeToCover(), ResizeToCover()
    runner = SimpleNamespace(model=model, val_dataloader=[val], test_dataloader=[test])
    ImageSizeHook().before_val(runner)
    assert (val.size, test.size) == ((64, 32), None)
    ImageSizeHook().before_test(runner)
    assert test.size == (64, 32)


def test_a_size_that_the_config_forgot_is_refused():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.img_size = (512, 512)
    cfg = ConfigDict(crop_size=(1024, 1024), model=dict(backbone=dict(type="TimmViT")))
    runner = SimpleNamespace(model=model, train_dataloader=[], cfg=cfg)
    with pytest.raises(
        ValueError, match=r"no img_size, and TimmViT takes \(512, 512\), but the data"
    ):
        ImageSizeHook().before_train(runner)
    cfg.model.backbone.img_size = 512  # stated, so meant
    ImageSizeHook().before_train(runner)


def test_the_train_loop_fills_the_size_in_before_mmengine_can_start_workers(monkeypatch):
    seen = {}

    def stops_where_workers_would_start(self, runner, dataloader, *args, **kwargs):
        seen.update(dataloader["dataset"]["pipeline"][0])
        raise InterruptedError

    monkeypatch.setattr(IterBasedTrainLoop, "__init__", stops_where_workers_would_start)
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.img_size = (64, 32)
    loader = dict(dataset=dict(pipeline=[dict(type="LoadRandomCrop")]))
    with pytest.raises(InterruptedError):
        OptimStepTrainLoop(SimpleNamespace(model=model), loader, max_iters=1)
    assert seen["crop_size"] == (64, 32)

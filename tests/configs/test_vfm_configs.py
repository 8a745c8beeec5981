"""The leaves of configs/vfm: they compose, agree with the grid and hold differences only."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from vfm_ss.protocol.settings import (
    SETTINGS,
    all_config_names,
    config_name,
    parse_config_name,
)
from vfm_ss.protocol.vfms import VFMS

ROOT = Path(__file__).parents[2] / "configs" / "vfm"
LEAVES = sorted(ROOT.glob("*.py"))


DATASETS = {
    "ade20k": "RawADE20KDataset",
    "voc2012": "RawVOC2012Dataset",
    "cityscapes": "RawCityscapesDataset",
    "gta": "GTADataset",
}
HEADS = {
    "linear": "LinearHead",
    "probe": "LinearHead",
    "mask2former": "SingleScaleMask2FormerHead",
}


def test_the_leaves_are_the_grid():
    assert sorted(path.stem for path in LEAVES) == sorted(all_config_names())


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_leaf_is_what_its_name_says(path):
    name = parse_config_name(path.stem)
    setting = SETTINGS[name.setting]
    cfg = Config.fromfile(path)
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert backbone.type == VFMS[name.vfm].name
    assert backbone.arch[0] == name.size
    assert backbone.patch_size == name.patch
    assert backbone.pretrained is True
    assert backbone.get("frozen", False) == (setting.decoder == "probe")
    assert tuple(backbone.img_size) == (setting.data.crop_size,) * 2
    assert head.type == HEADS[name.decoder]
    assert head.num_classes == setting.data.num_classes
    assert cfg.train_dataloader.dataset.type == DATASETS[setting.data.train]
    assert cfg.val_dataloader.dataset.type == DATASETS[setting.data.eval]
    assert cfg.train_cfg.max_iters == setting.data.steps
    assert cfg.train_cfg.effective_batch == 16
    assert cfg.train_cfg.micro_batch == "auto"
    assert cfg.train_dataloader.batch_size == 16
    assert "mean" not in cfg.model.data_preprocessor


BUILT = [n for n in all_config_names() if parse_config_name(n).setting == "default"]
BUILT += [config_name("aimv2", "large")]
BUILT += [config_name("dinov2", setting) for setting in SETTINGS if setting != "default"]


@pytest.mark.parametrize("name", BUILT)
def test_its_model_is_built_at_full_size(name):
    cfg = Config.fromfile(ROOT / f"{name}.py")
    cfg.model.backbone.pretrained = False
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    frozen = not any(p.requires_grad for p in model.backbone.parameters())
    assert frozen == (SETTINGS[parse_config_name(name).setting].decoder == "probe")
    assert model.decode_head.in_channels == model.backbone.embed_dim
    assert model.test_cfg.crop_size == model.backbone.img_size


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_leaf_holds_its_differences_only(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 3, "what several leaves share belongs into configs/_base_"


def test_the_recipe_is_the_papers():
    cfg = Config.fromfile(ROOT / "dinov2_b16_linear_ade20k.py")
    assert cfg.optim_wrapper.optimizer == dict(type="AdamW", lr=1e-4, weight_decay=0.05)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {"backbone": dict(lr_mult=0.1)}
    assert cfg.param_scheduler == dict(type="FullPolyLR", power=0.9, eta_min=0.0, by_epoch=False)
    assert "clip_grad" not in cfg.optim_wrapper


def test_another_project_inherits_a_config_by_package_name(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        '_base_ = "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"\n'
        "model = dict(backbone=dict(pretrained=False, depth=1), decode_head=dict(num_classes=4))\n"
    )
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == "VFMEncoderDecoder"
    assert model.decode_head.num_classes == 4
    assert model.backbone.img_size == (512, 512)


def test_configs_of_mmseg_itself_can_be_inherited(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('_base_ = "mmseg::_base_/schedules/schedule_40k.py"\n')
    assert Config.fromfile(path).train_cfg.max_iters == 40000

"""The identity of a config: what counts, what does not, and a checksum that holds still."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from vfm_ss.protocol.identity import config_hash, describe, differing, identity, texts
from vfm_ss.protocol.settings import SETTINGS, config_name

LEAVES = Path(__file__).parents[2] / "configs" / "vfm"


@pytest.fixture
def cfg():
    return Config.fromfile(LEAVES / "dinov2_b16_linear_ade20k.py")


def hash_of(cfg, **options):
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(options)
    return config_hash(identity(cfg))


NO_EFFECT = {
    "work_dir": "elsewhere",
    "launcher": "slurm",
    "load_from": "x.pth",
    "resume": True,
    "log_level": "ERROR",
    "randomness.seed": 7,
    "env_cfg.cudnn_benchmark": False,
    "my_variable": 1,
    "data_root": "/mnt/data",
    "train_dataloader.dataset.data_root": "/mnt/data/ADEChallengeData2016.zip",
    "val_dataloader.dataset.data_root": "/mnt/data/ADEChallengeData2016.zip",
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_dataloader.batch_size": 4,
    "val_dataloader.batch_size": 1,
    "test_dataloader.dataset.type": "X",
    "train_cfg.micro_batch": 2,
    "train_cfg.val_interval": 7,
    "train_cfg.effective_batch": 16,
    "model.backbone.compile": True,
    "model.backbone.with_cp": True,
    "model.backbone.pretrained": "/mnt/weights.pth",
    "model.test_cfg.precision": "fp16",
    "model.backbone.img_size": [512, 512],
    "default_hooks.logger.interval": 1,
    "default_hooks.checkpoint.interval": 1,
    "default_hooks.visualization.draw": True,
    "default_hooks.record.vfm": "mine",
    "custom_hooks": [{"type": "mmseg.SegVisualizationHook"}, {"type": "SaveLabelsHook"}],
    "visualizer.save_dir": "shown",
}
EFFECT = {
    "optim_wrapper.optimizer.lr": 1e-3,
    "optim_wrapper.optimizer.weight_decay": 0.0,
    "optim_wrapper.paramwise_cfg.layer_decay": 0.65,
    "optim_wrapper.precision": "fp32",
    "param_scheduler.power": 1.0,
    "train_cfg.max_iters": 10,
    "train_cfg.effective_batch": 8,
    "model.backbone.img_size": [448, 448],
    "model.backbone.pretrained": False,
    "model.backbone.drop_path_rate": 0.1,
    "model.backbone.type": "MAE",
    "model.decode_head.num_classes": 19,
    "model.test_cfg.mode": "whole",
    "train_dataloader.dataset.indices": 100,
    "train_dataloader.dataset.data_prefix.img_path": "images/validation",
    "val_dataloader.dataset.data_prefix.img_path": "images/training",
    "train_dataloader.dataset.ann_file": "train_aug.txt",
    "val_evaluator.type": "IoUMetric",
    "custom_hooks": [{"type": "EMAHook"}],
    "default_hooks.stop": {"type": "EarlyStoppingHook", "monitor": "mIoU"},
}


@pytest.mark.parametrize("option", NO_EFFECT)
def test_what_cannot_change_the_result_does_not_count(cfg, option):
    assert hash_of(cfg, **{option: NO_EFFECT[option]}) == hash_of(cfg)


@pytest.mark.parametrize("option", EFFECT)
def test_what_can_change_the_result_counts(cfg, option):
    changed = copy.deepcopy(cfg)
    changed.merge_from_dict({option: EFFECT[option]})
    assert hash_of(cfg, **{option: EFFECT[option]}) != hash_of(cfg)
    keys = differing(identity(cfg), identity(changed))
    assert all(key.startswith(option) for key in keys)
    assert len(keys) > 0


@pytest.mark.parametrize(
    ("argument", "counts"),
    [({"distortion": None}, True), ({"crop_size": None}, False), ({"crop_size": 512}, False),
     ({"pad_value": "mean"}, True)],
)  # fmt: skip
def test_what_a_transform_is_given_counts_but_the_model_s_size(cfg, argument, counts):
    changed = copy.deepcopy(cfg)
    changed.train_dataloader.dataset.pipeline[0].update(argument)
    assert (hash_of(changed) != hash_of(cfg)) == counts


def test_the_checksum_is_sha256_of_sorted_json(cfg):
    """Computed here by hand, so that no change of ours moves published checksums unseen."""
    small = {
        "work_dir": "x",
        "train_cfg": {"max_iters": 5, "type": "OptimStepTrainLoop"},
        "optim_wrapper": {"optimizer": {"lr": 1e-4, "type": "AdamW"}, "betas": (0.9, 0.999)},
    }
    expected = {
        "optim_wrapper.betas": [0.9, 0.999],
        "optim_wrapper.optimizer.lr": 0.0001,
        "optim_wrapper.optimizer.type": "AdamW",
        "train_cfg.effective_batch": 16,
        "train_cfg.max_iters": 5,
        "train_cfg.type": "OptimStepTrainLoop",
    }
    assert identity(small) == expected
    text = json.dumps(expected, sort_keys=True).encode()
    assert config_hash(identity(small)) == hashlib.sha256(text).hexdigest()
    assert config_hash(dict(reversed(expected.items()))) == config_hash(expected)
    assert config_hash(json.loads(json.dumps(identity(cfg)))) == hash_of(cfg)


def test_objects_count_by_their_names_without_addresses():
    class MyLoss:
        pass

    def hashed(*values):
        return config_hash(identity({"model": {"parts": list(values)}}))

    assert hashed(MyLoss(), MyLoss, float("inf")) == hashed(MyLoss(), MyLoss, float("inf"))
    assert hashed(Path("a")) != hashed(Path("b"))
    assert identity({"model": {"type": dict}}) == identity({"model": {"type": "dict"}})


def test_absolute_paths_count_by_their_last_part():
    def of(path):
        return identity({"train_dataloader": {"dataset": {"ann_file": path}}})

    assert of("/a/train.txt") == of("/b/c/train.txt") != of("/a/trainaug.txt")
    assert of("splits/train.txt") != of("other/train.txt")


def test_a_config_inherited_by_package_name_is_the_same(cfg, tmp_path):
    path = tmp_path / "dinov2_b16_linear_ade20k.py"
    path.write_text('_base_ = __import__("vfm_ss") and "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"\n')
    assert hash_of(Config.fromfile(path)) == hash_of(cfg)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_leaves_of_a_setting_differ_in_the_backbone_alone(setting):
    a, b = (
        identity(Config.fromfile(LEAVES / f"{config_name(vfm, setting)}.py"))
        for vfm in ("eva02", "sam")
    )
    assert [key for key in differing(a, b) if not key.startswith("model.backbone.")] == []


def test_differences_are_told():
    was, now = {"a": 1, "b": [1], "c": None, "d": 0}, {"a": 1.0, "b": [1, 1], "d": 1, "e": "x"}
    assert differing(was, now) == ["b", "c", "d", "e"]
    told = describe(differing(was, now), texts(was), texts(now))
    assert told == "b was [1], is [1, 1]; c was null, is not set; d was 0, is 1; and 1 more"


def test_what_earlier_versions_counted_and_has_no_effect_makes_no_difference():
    now = {"model.type": "A", "train_cfg.max_iters": 4}
    earlier = {**now, "model.test_cfg.window_batch": 4, "model.backbone.with_cp": True}
    assert differing(earlier, now) == differing(now, earlier) == []
    assert differing({**earlier, "model.type": "B"}, now) == ["model.type"]

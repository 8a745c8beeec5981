"""Numbers in a config or in --cfg-options that are none, or out of range, are refused by name."""

from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from vfm_ss.cli.call import foreseen
from vfm_ss.cli.train import main
from vfm_ss.engine.stated_numbers import _NUMBERS, check_numbers

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "vfm" / "mae_b16_mask2former_ade20k.py"
WRONG = (
    "train_cfg.max_iters=abc", "train_cfg.max_iters=-1", "train_cfg.max_iters=0",
    "train_cfg.max_iters=1.5", "train_cfg.max_iters=1e4", "train_cfg.max_iters=True",
    "train_cfg.val_interval=0", "train_cfg.val_begin=-2", "train_cfg.effective_batch=0",
    "train_cfg.micro_batch=all", "train_dataloader.batch_size=abc",
    "val_dataloader.batch_size=0", "test_dataloader.num_workers=-1",
    "train_dataloader.prefetch_factor=0", "optim_wrapper.optimizer.lr=abc",
    "optim_wrapper.optimizer.lr=nan", "optim_wrapper.optimizer.lr=-0.1",
    "optim_wrapper.optimizer.weight_decay=-1", "param_scheduler.0.power=x",
    "default_hooks.checkpoint.interval=0", "default_hooks.logger.interval=0",
    "randomness.seed=-1",
)  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return Config.fromfile(CONFIG)


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_number_is_named_with_what_was_expected(option, config):
    name, _, value = option.partition("=")
    cfg = config.copy()
    cfg.merge_from_dict({name: DictAction._parse_int_float_bool(value)})
    with pytest.raises(ValueError, match=r"expected a(n integer| number).*--cfg-options") as error:
        check_numbers(cfg)
    assert str(error.value).startswith(f"{name}=")
    assert foreseen(error.value)


def test_every_rule_meets_what_is_stated(config):
    """A rule whose name no config states would check nothing."""
    cfg = config.copy()
    cfg.merge_from_dict({
        "train_cfg": dict(max_epochs="x", val_begin="x", effective_batch="x", micro_batch="x"),
        "train_dataloader.prefetch_factor": "x", "optim_wrapper.accumulative_counts": "x",
        "optim_wrapper.paramwise_cfg": dict(layer_decay="x", custom_keys={"a.b": {"lr_mult": "x"}}),
        "param_scheduler": [dict(begin="x", end="x", power="x", eta_min="x")],
        "default_hooks": dict(
            checkpoint=dict(interval="x", max_keep_ckpts="x"), logger=dict(interval="x")
        ),
        "randomness": dict(seed="x"),
    }, allow_list_keys=True)  # fmt: skip
    cfg.train_cfg.update(max_iters="x", val_interval="x")
    cfg.optim_wrapper.optimizer.update(lr="x", weight_decay="x")
    cfg.train_dataloader.update(batch_size="x", num_workers="x")
    known, refused = dict(_NUMBERS), 0
    for _ in known:
        with pytest.raises(ValueError, match="expected") as error:
            check_numbers(cfg)
        name = str(error.value).partition("=")[0]
        place = cfg
        *path, last = name.replace("a.b", "a/b").split(".")
        for part in path:
            place = place[int(part) if part.isdigit() else part.replace("a/b", "a.b")]
        place[last] = None
        refused += 1
    check_numbers(cfg)
    assert refused == len(known)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "vfm").glob("*_b8_*_ade20k.py"))[:3])
def test_the_published_configs_are_fine(path):
    check_numbers(Config.fromfile(path))


def test_the_command_says_one_line(tmp_path, capsys):
    status = main([str(CONFIG), "--work-dir", str(tmp_path), "--cfg-options", WRONG[0]])
    assert status == 1
    assert capsys.readouterr().err == (
        "vfm-ss train: error: train_cfg.max_iters='abc': expected an integer of 64 bits, 1 or "
        "more; correct it in --cfg-options or in the config\n"
    )

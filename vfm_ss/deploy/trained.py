"""A trained model from its config and its checkpoint, with every weight of the checkpoint."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from vfm_ss.config_file import read_config
from vfm_ss.engine import trained_model
from vfm_ss.engine.checkpoint_io import weights_of
from vfm_ss.engine.stated_numbers import check_numbers

#: Options of a backbone that are of use in training alone.
_OF_TRAINING = ("with_cp", "compile")


def load_trained(
    config: str | Path, checkpoint: str | Path, cfg_options: dict | None = None
) -> tuple[nn.Module, Config, dict]:
    """Build a model and fill it from a checkpoint, on the CPU, in eval mode.

    Stricter than a test: a weight of the checkpoint without a place in the model is an error, too.

    Args:
        config: Config file that the checkpoint was trained with.
        checkpoint: What training saved.
        cfg_options: Overrides of the config, with dots in the keys.

    Returns:
        The model, its config, and the ``meta`` of the checkpoint (empty where it has none).

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the config cannot be used, or if the checkpoint and the model do not have the
            same weights.
    """
    cfg = read_config(config, cfg_options, needs=("model",))
    check_numbers(cfg)
    init_default_scope(cfg.get("default_scope", "mmseg"))
    for option in _OF_TRAINING:
        if cfg.model.get("backbone", {}).get(option):
            cfg.model.backbone[option] = False
    model, loaded = trained_model.load_trained(cfg, str(checkpoint))
    held, wanted = weights_of(loaded).keys(), model.state_dict().keys()
    for what, names in (("lacks", wanted - held), ("has, beyond the model's,", held - wanted)):
        if names:
            raise ValueError(
                f"{checkpoint} is not of the model of {config}: it {what} {len(names)} weight(s), "
                f"such as {min(names)}; use the config that it was trained with"
            )
    model.cfg = cfg
    meta = loaded.get("meta")
    return model, cfg, meta if isinstance(meta, dict) else {}

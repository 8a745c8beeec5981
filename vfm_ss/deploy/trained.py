"""A trained model from its config and its checkpoint, with every weight of the checkpoint."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from vfm_ss.engine.checkpoint_io import load_from_local

#: Options of a backbone that are of use in training alone.
_OF_TRAINING = ("with_cp", "compile")


def load_trained(
    config: str | Path, checkpoint: str | Path, cfg_options: dict | None = None
) -> tuple[nn.Module, Config, dict]:
    """Build a model and fill it from a checkpoint, on the CPU, in eval mode.

    Args:
        config: Config file that the checkpoint was trained with.
        checkpoint: What training saved.
        cfg_options: Overrides of the config, with dots in the keys.

    Returns:
        The model, its config, and the ``meta`` of the checkpoint (empty where it has none).

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint and the model do not have the same weights.
    """
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(cfg_options or {})
    init_default_scope(cfg.get("default_scope", "mmseg"))
    for option in _OF_TRAINING:
        if cfg.model.get("backbone", {}).get(option):
            cfg.model.backbone[option] = False
    loaded = load_from_local(str(checkpoint))
    model = MODELS.build(cfg.model)
    load_all(model, loaded.get("state_dict", loaded), checkpoint, config)
    model.cfg = cfg
    meta = loaded.get("meta")
    return model.eval(), cfg, meta if isinstance(meta, dict) else {}


def load_all(
    model: nn.Module, state_dict: dict[str, Tensor], checkpoint: str | Path, config: str | Path
) -> None:
    """Load weights of the same names and shapes, all of them, into a model.

    Args:
        model: The model.
        state_dict: Its weights, perhaps as of a model in ``DistributedDataParallel``.
        checkpoint: Where they come from, for the message.
        config: Where the model comes from, for the message.

    Raises:
        ValueError: If a weight is missing, of another shape or without a place.
    """
    state_dict = {
        name.removeprefix("module."): value
        for name, value in state_dict.items()
        if isinstance(value, Tensor)
    }
    remedy = "use the config that it was trained with"
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:  # of another shape
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{checkpoint} is not of the model of {config}: {reason} {remedy}") from (
            error
        )
    for names, what in ((missing, "lacks"), (unexpected, "has, beyond the model's,")):
        if names:
            raise ValueError(
                f"{checkpoint} is not of the model of {config}: it {what} {len(names)} weight(s), "
                f"such as {names[0]}; {remedy}"
            )

"""Numbers that a config states, checked before anything is built from them.

The libraries below take some wrong ones for others (``max_iters=1.5`` for 1), and end with a
traceback on the rest.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from vfm_ss.protocol import kinds as k
from vfm_ss.protocol.identity import flatten

_AUTO = k.Kind(lambda v: v == "auto" or k.POSITIVE.accepts(v), "an integer, 1 or more, or auto")
_OR_NEVER = k.Kind(lambda v: v == -1 or k.POSITIVE.accepts(v), "an integer, 1 or more, or -1")
#: What numbers may be, by their dotted names; None is left to the libraries' own defaults.
_NUMBERS = {
    "train_cfg.max_iters": k.POSITIVE,
    "train_cfg.max_epochs": k.POSITIVE,
    "train_cfg.val_interval": k.POSITIVE,
    "train_cfg.val_begin": k.COUNT,
    "train_cfg.effective_batch": k.POSITIVE,
    "train_cfg.micro_batch": _AUTO,
    "*_dataloader.batch_size": k.POSITIVE,
    "*_dataloader.num_workers": k.COUNT,
    "*_dataloader.prefetch_factor": k.POSITIVE,
    "optim_wrapper.accumulative_counts": k.POSITIVE,
    "optim_wrapper.optimizer.lr": k.NUMBER,
    "optim_wrapper.optimizer.weight_decay": k.NUMBER,
    "optim_wrapper.paramwise_cfg.layer_decay": k.MORE_THAN_0,
    "optim_wrapper.paramwise_cfg.custom_keys.*_mult": k.NUMBER,
    "param_scheduler.*begin": k.NUMBER,
    "param_scheduler.*end": k.NUMBER,
    "param_scheduler.*power": k.NUMBER,
    "param_scheduler.*eta_min": k.NUMBER,
    "default_hooks.checkpoint.interval": _OR_NEVER,
    "default_hooks.checkpoint.max_keep_ckpts": _OR_NEVER,
    "default_hooks.logger.interval": k.POSITIVE,
    "randomness.seed": k.COUNT,
}


def check_numbers(cfg: Mapping) -> None:
    """Refuse a number that is none, or is out of range.

    Args:
        cfg: A whole config, overrides applied.

    Raises:
        ValueError: Names the option, what it is and what was expected.
    """
    found: dict[str, object] = {}
    for section in dict.fromkeys(name.partition(".")[0] for name in _NUMBERS):
        for name in [key for key in cfg if fnmatchcase(key, section)]:
            flatten(name, cfg[name], found)
    for name, value in found.items():
        kind = next((kind for known, kind in _NUMBERS.items() if fnmatchcase(name, known)), None)
        if kind is None or value is None or kind.accepts(value):
            continue
        raise ValueError(
            f"{name}={k.short(value)}: expected {kind.expected}; correct it in --cfg-options or "
            "in the config"
        )

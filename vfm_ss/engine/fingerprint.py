"""What must be the same for a checkpoint to be resumed: model, optimiser, schedule and data."""

import json
from typing import Any

_SECTIONS = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader.dataset")
# These change memory, speed or inference, or where files are, but not the run.
_FREE = (
    "model.backbone.pretrained", "model.pretrained", "model.test_cfg", "model.init_cfg",
    "optim_wrapper.precision", "train_cfg.type", "train_cfg.micro_batch", "train_cfg.val_interval",
    "train_cfg.val_begin", "train_cfg.dynamic_intervals", "train_cfg.nonfinite_loss",
)  # fmt: skip
_OF_DATA = ("type", "times", "reduce_zero_label")  # paths and backends may change


def fingerprint(cfg) -> dict[str, str]:
    """Return what identifies a run, as plain text.

    Args:
        cfg: Config of the run.

    Returns:
        Values as JSON by their dotted names.
    """
    found: dict[str, str] = {}
    for section in _SECTIONS:
        value: Any = cfg
        for key in section.split("."):
            value = value.get(key) if hasattr(value, "get") else None
        if value is not None:
            _flatten(section, value, found)
    return {
        key: text
        for key, text in found.items()
        if not any(key == free or key.startswith(f"{free}.") for free in _FREE)
        and (not key.startswith("train_dataloader") or key.rsplit(".", 1)[1] in _OF_DATA)
    }


def difference(saved: dict[str, str], current: dict[str, str]) -> str | None:
    """Describe how a run differs from the one that saved a checkpoint, or return None."""
    keys = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
    if not keys:
        return None
    told = [
        f"{key} was {saved.get(key, 'not set')}, is {current.get(key, 'not set')}"
        for key in keys[:3]
    ]
    return "; ".join(told) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flatten(name: str, value: Any, found: dict[str, str]) -> None:
    if hasattr(value, "items") and value:
        for key, part in value.items():
            _flatten(f"{name}.{key}", part, found)
    elif isinstance(value, (list, tuple)) and any(hasattr(part, "items") for part in value):
        for i, part in enumerate(value):
            _flatten(f"{name}.{i}", part, found)
    else:
        found[name] = json.dumps(value, default=str)

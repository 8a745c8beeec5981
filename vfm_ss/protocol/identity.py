"""What a run's result follows from: its resolved config, without what cannot change the result.

This module is the one place that says what can. Two runs of one identity differ by their seed
alone. Plain dicts in, plain data out; standard library only.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vfm_ss.protocol.fractions import normal_fraction

#: Images of an optimiser step, unless a config says otherwise: the paper's protocol.
EFFECTIVE_BATCH = 16

#: Where files are and how they are read. An absolute path counts by its last part: moved data stay
#: the same data, another list of samples in it does not.
PLACES = frozenset({
    "data_root", "backend_args", "file_client_args", "lazy_init", "serialize_data", "max_refetch",
    "probe",
})  # fmt: skip
#: Speed, memory, and what is shown, at any depth of the config; the registry's scope.
_NO_EFFECT = PLACES | {
    "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout", "with_cp",
    "compile", "micro_batch", "nonfinite_loss", "val_interval", "val_begin", "dynamic_intervals",
    "window_batch", "seg_logits", "output_dir", "out_dir", "collect_device", "collect_dir",
    "_scope_",
}  # fmt: skip
#: What the runner trains and evaluates with. All else (visualizer, log_processor, env_cfg,
#: launcher, work_dir, test_dataloader, ...) and free variables change no recorded score; the seed
#: is a field of its own.
_SECTIONS = (
    "model", "data_preprocessor", "train_cfg", "val_cfg", "optim_wrapper", "auto_scale_lr",
    "param_scheduler", "train_dataloader", "val_dataloader", "val_evaluator", "default_hooks",
    "custom_hooks",
)  # fmt: skip
#: Hooks that log, save or show, by their class without the prefixes that name variants.
_HOOKS = re.compile(
    r".*(RuntimeInfo|IterTimer|Logger|Checkpoint|SegVisualization|PaintPredictions|SaveLabels|"
    r"SaveExamples|ImageSize|Record|MemoryProfiler|Profiler|EmptyCache|SyncBuffer)Hook"
)
#: Sizes may be one number or two, and a transform's may be left to the model.
SIZES = ("img_size", "crop_size", "size")
_PATHS = ("ann_file", "data_prefix", "images", "labels", "split")


def identity(cfg: Mapping) -> dict[str, Any]:
    """Return what identifies a run's configuration.

    Args:
        cfg: Resolved config: bases merged, overrides applied.

    Returns:
        JSON values by their dotted names, in the order of the names.
    """
    found: dict[str, Any] = {}
    for section in _SECTIONS:
        value = _effective(section, cfg.get(section))
        if value not in (None, [], {}):
            flatten(section, value, found)
    if found.get("train_cfg.type") == "OptimStepTrainLoop":
        # The loop splits a step's images by itself, among processes too.
        found.setdefault("train_cfg.effective_batch", EFFECTIVE_BATCH)
        found.pop("train_dataloader.batch_size", None)
    normal_fraction(found, "train_dataloader.dataset")
    found.pop("val_dataloader.batch_size", None)
    found.pop("model.test_cfg.precision", None)  # training's, where it is not stated
    size = found.get("model.backbone.img_size")
    found = {k: _canonical(k, v, size) for k, v in sorted(found.items())}
    return {k: v for k, v in found.items() if v is not None or not _is_default(k)}


def config_hash(found: Mapping[str, Any]) -> str:
    """Return the checksum of an identity, 64 hexadecimal digits, whatever the order of its keys."""
    text = json.dumps(dict(found), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def effective(found: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an identity that an earlier version has made what is known to have no effect."""
    return {k: v for k, v in found.items() if _NO_EFFECT.isdisjoint(k.split("."))}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the names of what two identities do not share; 1 and 1.0 are the same."""
    a, b = effective(a), effective(b)
    return sorted(key for key in {*a, *b} if a.get(key, ...) != b.get(key, ...))


def describe(
    keys: Iterable[str], was: Mapping[str, str], now: Mapping[str, str], most: int = 3
) -> str:
    """Say what some names were and are, in one line.

    Args:
        keys: The names, those first that say most.
        was: Values before, as text.
        now: Values now, as text.
        most: How many are told.
    """
    keys = list(keys)
    told = [
        f"{key} was {was.get(key, 'not set')}, is {now.get(key, 'not set')}" for key in keys[:most]
    ]
    return "; ".join(told) + (f"; and {len(keys) - most} more" if len(keys) > most else "")


def texts(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as text, as `describe` takes them."""
    return {key: json.dumps(value, ensure_ascii=False) for key, value in found.items()}


def flatten(name: str, value: Any, found: dict[str, Any]) -> None:
    """Put the leaves of nested dicts and lists into ``found`` as JSON values, by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            flatten(f"{name}.{key}", part, found)
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        for i, part in enumerate(value):
            flatten(f"{name}.{i}", part, found)
    else:
        found[name] = json.loads(json.dumps(value, default=_name), parse_constant=str)


def pair(value: Any) -> Any:
    """Write a size of one number as two."""
    return [value, value] if type(value) is int else value


def _effective(section: str, value: Any) -> Any:
    """Leave out what cannot change the result."""
    if section == "default_hooks":
        return {k: _effective("", v) for k, v in (value or {}).items() if v and not _is_silent(v)}
    if section == "custom_hooks":
        return [_effective("", hook) for hook in value or () if not _is_silent(hook)]
    if isinstance(value, Mapping):
        return {k: _effective("", v) for k, v in value.items() if k not in _NO_EFFECT}
    if isinstance(value, (list, tuple)):
        return [_effective("", part) for part in value]
    return value


def _is_silent(hook: Any) -> bool:
    kind = hook.get("type") if isinstance(hook, Mapping) else None
    return _HOOKS.fullmatch(_name(kind)) is not None


def _canonical(key: str, value: Any, model_size: Any) -> Any:
    """Write what means the same in the same way."""
    parts = key.split(".")
    if parts[-1] == "pretrained" and value not in (None, False):
        return True  # which weights, says their checksum
    if isinstance(value, str) and value.startswith("/") and not set(parts).isdisjoint(_PATHS):
        return value.rstrip("/").rpartition("/")[2]
    if parts[-1] in SIZES:
        value = pair(value)
        if "_dataloader." in key and value == pair(model_size):
            return None  # what a transform takes from the model by itself
    return value


def _is_default(key: str) -> bool:
    """Return whether None means the same there as nothing.

    A transform may be switched off by it (``distortion=None``), but takes its size from the model.
    """
    return "_dataloader." in key and (".pipeline." not in key or key.split(".")[-1] in SIZES)


def _name(value: Any) -> str:
    """Write a class, a function or another object of a config, without its address."""
    text = getattr(value, "__qualname__", None) or str(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)

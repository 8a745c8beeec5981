"""What a record says of a run: read off its parts and its config, never guessed."""

import math
import platform
import resource
from importlib import metadata
from pathlib import Path

import torch
from mmengine.runner import Runner
from torch import nn

from vfm_ss.compat import stack
from vfm_ss.compat.mmseg_datasets import is_subset
from vfm_ss.datasets.probe import parts
from vfm_ss.files import sha256
from vfm_ss.protocol.identity import config_hash, identity
from vfm_ss.protocol.settings import decoder_name
from vfm_ss.protocol.vfms import SIZES
from vfm_ss.version import __version__


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Count the parameters of a model, all or those that have gradients."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def name_of(cfg) -> str:
    """Return the name of a config: that of its file."""
    return Path(cfg.filename).stem if cfg.filename else cfg.get("experiment_name") or "unnamed"


def describe_setting(model: nn.Module, runner: Runner) -> dict:
    """Return the fields of a record that say VFM and setting."""
    backbone, head = model.backbone, model.decode_head
    # Only a key of its own: a head derived from ours is another decoder.
    key = vars(type(head)).get("key", type(head).__name__.lower())
    return {
        "vfm": getattr(backbone, "key", type(backbone).__name__.lower()),
        "size": {arch: s for s, arch in SIZES.items()}.get(getattr(backbone, "arch", None)),
        "patch": getattr(backbone, "patch_size", None),
        "decoder": decoder_name(key, getattr(backbone, "frozen", False)),
        "train_dataset": dataset_name(runner.train_dataloader.dataset),
        "eval_dataset": dataset_name(runner.val_dataloader.dataset),
    }


def dataset_name(dataset) -> str:
    """Return the key of a data set's class, or its name; of joined ones each once."""
    while hasattr(dataset, "dataset"):  # RepeatDataset and other wrappers
        dataset = dataset.dataset
    if hasattr(dataset, "datasets"):
        return "+".join(dict.fromkeys(dataset_name(part) for part in dataset.datasets))
    return getattr(dataset, "key", type(dataset).__name__.removesuffix("Dataset").lower())


def percent(value) -> float | None:
    """Return a finite number; None for any other."""
    return None if value is None or not math.isfinite(value) else float(value)


def class_ious(evaluator) -> dict[str, float | None] | None:
    """Return the IoU of every class, where the metric keeps it."""
    for metric in evaluator.metrics:
        ious = getattr(metric, "per_class", {}).get("IoU")
        if ious:
            return {name: percent(value) for name, value in ious.items()}
    return None


def peak_memory_mb() -> float:
    """Return the peak of the GPU's memory, or of the process's on a CPU, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def device_name() -> str:
    """Return the GPU's name, or what is known of the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def versions() -> dict[str, str]:
    """Return the version of every package that the score may depend on."""
    found = {"python": platform.python_version(), "vfm_ss": __version__}
    for module in ("torch", "timm", "mmengine", "mmcv", "mmseg"):
        name, version = stack.installed(module)
        found[name] = version
    for name in ("numpy", "scipy"):
        found[name] = metadata.version(name)
    return found


def describe_configuration(model: nn.Module, runner: Runner) -> dict:
    """Return the fields of a record that identify the configuration, but for the weights."""
    cfg, backbone = runner.cfg, model.backbone
    subset = getattr(runner.train_dataloader.dataset, "subset", None)
    config = identity(cfg)
    size = getattr(backbone, "img_size", None)
    size = size or getattr(getattr(model, "data_preprocessor", None), "size", None)
    lr = config.get("optim_wrapper.optimizer.lr")
    return {
        "model_name": getattr(backbone, "model_name", None),
        "crop_size": [int(side) for side in size] if size and len(size) == 2 else None,
        "lr": lr if isinstance(lr, (int, float)) else None,
        "layer_decay": _layer_decay(config),
        "data": {
            "train_samples": _count(runner.train_dataloader.dataset),
            "fraction": _fraction(runner.train_dataloader.dataset),
            "subset_seed": getattr(subset, "seed", None),
        },
        "config": config,
        "config_hash": config_hash(config),
    }


def weights_of(model: nn.Module, load_from: str | None = None) -> dict[str, str | None] | None:
    """Return what training begins from, with its checksum; None where it is not known.

    Args:
        model: The model, just built.
        load_from: Checkpoint whose weights replace those of the model.
    """
    if load_from is not None:
        source, files = str(load_from), [Path(load_from)]
    elif hasattr(model.backbone, "weights_files"):
        source, files = model.backbone.weights, model.backbone.weights_files
    else:
        return None
    try:
        checksum = sha256(files) if files else None
    except OSError:  # an address, or a file that has been deleted since
        checksum = None
    return {"source": "".join(c for c in source if c.isprintable())[-200:], "sha256": checksum}


def _layer_decay(config: dict) -> float | None:
    """Return the factor from layer to layer; None for a constructor that has its own way."""
    constructor = config.get("optim_wrapper.constructor", "DefaultOptimWrapperConstructor")
    if constructor == "GroupedOptimWrapperConstructor":
        decay = config.get("optim_wrapper.paramwise_cfg.layer_decay")
        return 1.0 if decay is None else decay
    return 1.0 if constructor == "DefaultOptimWrapperConstructor" else None


def _fraction(dataset) -> float | None:
    """Return the share of the whole training set; None where ``indices`` have chosen a part."""
    subset = getattr(dataset, "subset", None)
    if subset is not None:
        return float(subset.fraction)
    return None if any(map(is_subset, parts(dataset))) else 1.0


def _count(dataset) -> int | None:
    """Return the number of different samples."""
    while hasattr(dataset, "dataset"):  # RepeatDataset and other wrappers
        dataset = dataset.dataset
    parts = getattr(dataset, "datasets", None)
    if parts:
        return sum(_count(part) for part in parts)
    return len(dataset)

"""What becomes of a config before it runs: read, checked, and fitted to processes and device."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from vfm_ss.config_file import read_config
from vfm_ss.datasets.eval_data import eval_items
from vfm_ss.errors import UsageError
from vfm_ss.protocol.identity import EFFECTIVE_BATCH

from .batching import per_rank_batch

#: What a job launcher tells each process its number by.
LAUNCHERS = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}


def load_config(
    config: str,
    cfg_options: dict | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    needs: tuple[str, ...] = (),
) -> Config:
    """Read a config and its overrides; the arguments are those of `train` and `read_config`.

    Raises:
        UsageError: If no launcher started this process though one is named.
        ValueError: See `read_config`.
    """
    number = LAUNCHERS.get(launcher)
    if number is not None and number not in os.environ:
        raise UsageError(
            f"--launcher {launcher}, but {number} is not set, so this process was not started by "
            "it; use tools/dist_train.sh, dist_test.sh or slurm_*.sh, or leave --launcher out"
        )
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    cfg = read_config(config, cfg_options, needs)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(config).stem)
    _without_workers(cfg)
    return cfg


def check_fraction(cfg: Config) -> None:
    """Refuse a ``fraction`` where nobody takes it.

    Raises:
        ValueError: If it is of another set than the training set, or the loop is another one.
    """
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if "fraction" not in ((cfg.get(name) or {}).get("dataset") or {}):
            continue
        if name != "train_dataloader":
            raise ValueError(
                f"{name}.dataset.fraction: scores are of the whole set; a fraction is of "
                "train_dataloader.dataset"
            )
        if cfg.train_cfg.get("type") != "OptimStepTrainLoop":
            raise ValueError(
                "train_dataloader.dataset.fraction goes with train_cfg.type='OptimStepTrainLoop', "
                f"not with {cfg.train_cfg.get('type')!r}"
            )


def check_eval_data(cfg: Config) -> None:
    """Refuse further data sets to evaluate on where nothing records their scores.

    Raises:
        UsageError: If the config has no RecordHook.
    """
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or ())]
    if eval_items(cfg) and not any(hook and hook.get("type") == "RecordHook" for hook in hooks):
        raise UsageError("eval_data needs default_hooks.record=dict(type='RecordHook')")


def share_effective_batch(cfg: Config) -> None:
    """Give each process its share of the effective batch, unless the config is of another loop.

    A config states the effective batch as ``batch_size``, as the published ones do, or a process's
    share of it.
    """
    if cfg.train_cfg.get("type") != "OptimStepTrainLoop":
        return
    processes = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    processes = 1 if cfg.launcher == "none" else processes
    effective_batch = cfg.train_cfg.get("effective_batch", EFFECTIVE_BATCH)
    share = per_rank_batch(effective_batch, processes)
    stated = cfg.train_dataloader.get("batch_size", share)
    # The published data sets say 16, also where train_cfg.effective_batch says otherwise.
    if stated not in (effective_batch, share, EFFECTIVE_BATCH):
        raise ValueError(
            f"train_dataloader.batch_size={stated} has no effect here: a step is always "
            f"{effective_batch} images; for memory use --micro-batch {stated} "
            f"(train_cfg.micro_batch), for steps of {stated} images "
            f"train_cfg.effective_batch={stated}"
        )
    cfg.train_dataloader.batch_size = share


def force_mixed_precision(cfg: Config) -> None:
    """Do what ``--amp`` says, for our optimiser wrapper and for mmengine's own two.

    The config becomes the same on every device, so that a run keeps its identity.

    Raises:
        ValueError: If the wrapper is another one, or the device lacks what it asks for.
    """
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    on_cpu = get_device() == "cpu"
    if kind == "AmpOptimWrapper" and not on_cpu:
        return  # it is so already
    if kind in ("OptimWrapper", "MixedPrecisionOptimWrapper"):
        cfg.optim_wrapper.update(type="MixedPrecisionOptimWrapper", precision="mixed")
    else:
        raise ValueError(
            f"--amp goes with optim_wrapper.type MixedPrecisionOptimWrapper or OptimWrapper on "
            f"{'a CPU' if on_cpu else 'a GPU'}, not with {kind}; leave it out"
        )


def use_device_well(cfg: Config) -> None:
    """Set what costs nothing and changes no result beyond rounding."""
    if get_device() != "cpu":
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if cfg.get(name) is not None:
                cfg[name].setdefault("pin_memory", True)
    optim_wrapper = cfg.get("optim_wrapper") or {}
    if (
        optim_wrapper.get("type") == "MixedPrecisionOptimWrapper"
        and cfg.model.get("type") == "VFMEncoderDecoder"
    ):
        # The network validates in the precision in which it trains.
        cfg.model.setdefault("test_cfg", ConfigDict())
        cfg.model.test_cfg.setdefault("precision", optim_wrapper.get("precision", "auto"))


def leaf_config(dataset: ConfigDict) -> ConfigDict:
    """Return the config of a data set within its wrappers, the first one of several."""
    while "pipeline" not in dataset and ("dataset" in dataset or "datasets" in dataset):
        dataset = dataset.dataset if "dataset" in dataset else dataset.datasets[0]
    return dataset


def _without_workers(cfg: Config) -> None:
    """Let ``num_workers=0`` alone do: torch refuses what configs state of workers beside it."""
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = cfg.get(name)
        if isinstance(loader, dict) and loader.get("num_workers") == 0:
            loader.persistent_workers = False
            loader.pop("prefetch_factor", None)

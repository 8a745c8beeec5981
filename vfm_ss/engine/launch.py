"""From command-line arguments to a running mmengine runner: what tools/train.py and test.py do."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from .batching import EFFECTIVE_BATCH, per_rank_batch
from .memory import keep_freed_memory


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that mmseg's train and test tools share."""
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--work-dir", help="folder of logs, checkpoints and record; default work_dirs/<config name>"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="override parts of the config, for example train_cfg.max_iters=1000; "
        "lists as key=a,b or key='[a,b]', no white space",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher; dist_train.sh and dist_test.sh pass pytorch",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def train(args: argparse.Namespace) -> None:
    """Train and validate one config.

    Args:
        args: Arguments of tools/train.py.

    Raises:
        ValueError: If the arguments do not fit each other or the config.
    """
    cfg = _load_config(args)
    if args.amp:
        cfg.optim_wrapper.precision = "bf16" if get_device() == "cpu" else "fp16"
    if args.seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": args.seed}
    if args.micro_batch is not None:
        cfg.train_cfg.micro_batch = args.micro_batch
    if args.resume == "auto":
        cfg.resume = "auto"
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume
    _share_effective_batch(cfg)
    _run(cfg, "train")


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint.

    Args:
        args: Arguments of tools/test.py.

    Raises:
        ValueError: If the arguments do not fit the config.
    """
    cfg = _load_config(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        _show(cfg, args)
    if args.out is not None:
        for evaluator in _as_list(cfg.test_evaluator):
            evaluator.output_dir = args.out
    if args.tta:
        if "tta_pipeline" not in cfg or "tta_model" not in cfg:
            raise ValueError(f"--tta needs tta_model and tta_pipeline, which {args.config} lacks")
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    _run(cfg, "test")


def _load_config(args: argparse.Namespace) -> Config:
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if not Path(args.config).is_file():
        raise ValueError(f"config {args.config} does not exist; configs/vfm holds the benchmark's")
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    return cfg


def _share_effective_batch(cfg: Config) -> None:
    """Give each process its share of the effective batch, unless the config is of another loop."""
    if cfg.train_cfg.get("type") != "OptimStepTrainLoop":
        return
    processes = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    processes = 1 if cfg.launcher == "none" else processes
    effective_batch = cfg.train_cfg.get("effective_batch", EFFECTIVE_BATCH)
    cfg.train_dataloader.batch_size = per_rank_batch(effective_batch, processes)


def _show(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.default_hooks.get("visualization")
    if hook is None:
        raise ValueError(
            "--show and --show-dir need default_hooks.visualization, which the config lacks; add "
            "dict(type='SegVisualizationHook')"
        )
    hook.draw = True
    hook.interval = 1
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _run(cfg: Config, mode: str) -> None:
    if cfg.launcher == "pytorch" and get_device() == "cpu":
        _prepare_cpu_processes(cfg)
    _use_device_well(cfg)
    runner = Runner.from_cfg(cfg)
    try:
        getattr(runner, mode)()
    except SystemExit:  # asked to stop; all processes leave together
        _leave_processes()
        raise
    _leave_processes()


def _leave_processes() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _use_device_well(cfg: Config) -> None:
    """Set what costs nothing and changes no result beyond rounding."""
    if get_device() == "cpu":
        keep_freed_memory()
    else:
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


def _prepare_cpu_processes(cfg: Config) -> None:
    """Start gloo and wrap the model without device ids: mmengine's own way needs a GPU."""
    torch.distributed.init_process_group("gloo")
    cfg.model_wrapper_cfg = ConfigDict(
        type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False
    )

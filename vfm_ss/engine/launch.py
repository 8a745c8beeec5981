"""From a config file to a running mmengine runner: what ``vfm-ss train`` and ``test`` do."""

import itertools
import os
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from vfm_ss.errors import UsageError
from vfm_ss.models.backbones.late_weights import IF_THERE, LATER, NOW, reading
from vfm_ss.run_lock import hold_run

from .eval_test import RunRecord, add_tta, test_on_eval_data
from .evaluations import loader_identity
from .prepared_config import (
    LAUNCHERS,
    check_eval_data,
    check_fraction,
    force_mixed_precision,
    leaf_config,
    load_config,
    share_effective_batch,
    use_device_well,
)
from .runner import KeepingRunner
from .speed import measure_speed, show_speed
from .stated_numbers import check_numbers

_TRAINED = ("model", "train_dataloader", "train_cfg", "optim_wrapper")
_TESTED = ("model", "test_dataloader", "test_evaluator")


def train(
    config: str,
    cfg_options: dict | None = None,
    *,
    work_dir: str | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    resume: str | None = None,
    amp: bool = False,
    seed: int | None = None,
    micro_batch: int | str | None = None,
) -> None:
    """Train and validate one config.

    Args:
        config: Config file.
        cfg_options: Overrides of it, with dots in the keys.
        work_dir: Folder of logs, checkpoints and record; ``work_dirs/<config name>`` by default.
        launcher: ``'none'``, or the job launcher that started this process.
        local_rank: Number of this process on its machine, unless ``LOCAL_RANK`` is set.
        resume: ``'auto'`` for the newest sound checkpoint in the work dir, or a checkpoint.
        amp: Force mixed precision, also on a CPU.
        seed: Random seed; the config's by default.
        micro_batch: Images per forward pass, or ``'auto'``; the config's by default.

    Raises:
        ValueError: If the arguments do not fit each other or the config.
        RunLockedError: If another process trains in the work dir.
    """
    cfg = load_config(config, cfg_options, work_dir, launcher, local_rank, _TRAINED)
    if amp:
        force_mixed_precision(cfg)
    if seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": seed}
    if micro_batch is not None:
        if cfg.train_cfg.get("type") != "OptimStepTrainLoop":
            raise ValueError(
                "--micro-batch goes with train_cfg.type='OptimStepTrainLoop'; another loop's is "
                "train_dataloader.batch_size"
            )
        cfg.train_cfg.micro_batch = micro_batch
    if resume == "auto":
        cfg.resume = "auto"
    elif resume:
        cfg.resume, cfg.load_from = True, resume
    check_numbers(cfg)
    check_fraction(cfg)
    check_eval_data(cfg)
    share_effective_batch(cfg)
    _hold_work_dir(cfg)
    _run(cfg, "train")


def test(
    config: str,
    checkpoint: str,
    cfg_options: dict | None = None,
    *,
    work_dir: str | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    fps: bool = False,
    examples: bool = False,
    eval_data: Sequence[str] | None = None,
) -> None:
    """Evaluate a checkpoint.

    Args:
        config: Config file.
        checkpoint: The checkpoint.
        cfg_options: As for `train`.
        work_dir: As for `train`.
        launcher: As for `train`.
        local_rank: As for `train`.
        out: Folder for predicted label maps.
        show: Show predictions in a window.
        show_dir: Folder for images with label and prediction painted over them.
        wait_time: Seconds between two shown predictions.
        tta: Average over augmented images, as ``tta_pipeline`` says. The score goes into the record
            beside the checkpoint as ``tta``, not in place of the plain one.
        fps: Measure the speed afterwards, for the log and the record beside the checkpoint.
        examples: Save predictions of a few validation images beside the checkpoint's record, for
            the report, as training does.
        eval_data: Data sets to evaluate on instead of the config's own, see
            `vfm_ss.datasets.eval_data`. Each score goes into the record beside the checkpoint.

    Raises:
        UsageError: If the config lacks what an argument needs.
        ValueError: If a data set cannot be used, or the record is of another run.
    """
    cfg = load_config(config, cfg_options, work_dir, launcher, local_rank, _TESTED)
    cfg.load_from = checkpoint
    check_numbers(cfg)
    if eval_data:
        if tta or (len(eval_data) > 1 and (out or show or show_dir)):
            raise UsageError(
                "--eval-data cannot be combined with --tta, and with --out, --show and --show-dir "
                "only for one data set at a time"
            )
        cfg.eval_data = list(eval_data)
    if fps and (tta or eval_data or launcher != "none"):
        raise UsageError("--fps cannot be combined with --tta, --eval-data or several processes")
    if examples and (tta or eval_data):
        raise UsageError("--examples cannot be combined with --tta or --eval-data")
    record = RunRecord(checkpoint, cfg) if tta or fps or examples else None
    if examples:
        _save_examples(cfg, record)
    if show or show_dir:
        _show(cfg, show, show_dir, wait_time)
    _save_labels(cfg, out)
    if tta:
        if "tta_pipeline" not in cfg or "tta_model" not in cfg:
            raise UsageError(f"--tta needs tta_model and tta_pipeline, which {config} lacks")
        use_device_well(cfg)  # while it is the model itself
        if cfg.tta_model.type == "SegTTAModel":
            cfg.model.setdefault("test_cfg", ConfigDict()).seg_logits = True
        leaf_config(cfg.test_dataloader.dataset).pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)

    def ended(runner: Runner, metrics: dict) -> None:
        if tta and metrics:
            add_tta(record, runner, metrics)
        if fps:
            speed = measure_speed(runner.model, cfg.test_dataloader.get("batch_size", 1))
            show_speed(speed)
            record.change(lambda r: setattr(r, "speed", speed), "speed")

    if eval_data:
        test_on_eval_data(cfg, _run, checkpoint)
    else:
        _run(cfg, "test", ended)


def _save_labels(cfg: Config, out: str | None) -> None:
    """Let a hook save predictions, and the metric do without labels, where it is asked for.

    A metric with ``format_only=True``, as mmseg has it, counts nothing; predictions then go to its
    ``output_dir``.
    """
    evaluators = cfg.get("test_evaluator") or []
    for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
        if metric.get("type") != "MeanIoUMetric":
            continue
        folder = metric.pop("output_dir", None)
        if metric.get("format_only") and folder is None and out is None:
            raise UsageError("format_only=True saves predictions: say where, by --out DIR")
        out = folder if out is None else out
        if out is not None:
            metric.setdefault("format_only", None)
    if out is not None:
        hooks = cfg.get("custom_hooks") or []
        cfg.custom_hooks = [*hooks, ConfigDict(type="SaveLabelsHook", out_dir=out)]


def _save_examples(cfg: Config, record: RunRecord) -> None:
    """Let the hook save examples in the test, which has to be the validation again.

    Raises:
        UsageError: If there is no record to save them beside, or the test set is another one.
    """
    if record.path is None:
        raise UsageError("--examples needs the record.json of the run beside the checkpoint")
    if loader_identity(cfg, cfg.test_dataloader) != loader_identity(cfg, cfg.val_dataloader):
        raise UsageError(
            "--examples are of the images of the score in the record, but test_dataloader is "
            "another set than val_dataloader"
        )
    hook = cfg.setdefault("default_hooks", ConfigDict()).get("examples") or {}
    tested = dict(folder=str(record.path.parent), step=record.step)
    hook = {"type": "SaveExamplesHook", "count": hook.get("count") or 4, "tested": tested}
    cfg.default_hooks.examples = ConfigDict(hook)


def _hold_work_dir(cfg: Config) -> None:
    """Leave a work dir in which another process trains before anything is written there."""
    if os.environ.get(LAUNCHERS.get(cfg.launcher, ""), "0") == "0":
        hold_run(cfg.work_dir)


def _show(cfg: Config, window: bool, folder: str | None, wait_time: float) -> None:
    hook = cfg.default_hooks.get("visualization")
    if hook is None:
        raise UsageError(
            "--show and --show-dir need default_hooks.visualization, which the config lacks; add "
            "dict(type='PaintPredictionsHook')"
        )
    hook.draw = True
    hook.interval = 1
    if window:
        hook.show = True
        hook.wait_time = wait_time
    if folder:
        cfg.visualizer.save_dir = folder


def _run(cfg: Config, mode: str, ended: Callable[[Runner, dict], None] | None = None) -> None:
    if cfg.launcher == "pytorch" and get_device() == "cpu":
        _prepare_cpu_processes(cfg)
    use_device_well(cfg)
    if cfg.get("visualizer"):
        cfg.visualizer.name = _free_name(cfg.visualizer.get("name", "visualizer"))
    when = LATER
    if mode == "train":
        # As early as can be: before the data is read, and with the structure they give the model.
        when = IF_THERE if cfg.get("resume") or cfg.get("load_from") else NOW
    with reading(when):
        runner = KeepingRunner.from_cfg(cfg)
    try:
        result = getattr(runner, mode)()
        if ended is not None:
            ended(runner, result)
    except SystemExit:  # asked to stop; all processes leave together
        _leave_processes()
        raise
    _leave_processes()


def _free_name(name: str) -> str:
    """Name a run's visualizer: mmengine's of the same name would log to the first run's folder."""
    names = itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2)))
    return next(free for free in names if not Visualizer.check_instance_created(free))


def _leave_processes() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _prepare_cpu_processes(cfg: Config) -> None:
    """Start gloo and wrap the model without device ids: mmengine's own way needs a GPU."""
    torch.distributed.init_process_group("gloo")
    cfg.model_wrapper_cfg = ConfigDict(
        type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False
    )

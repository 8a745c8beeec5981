"""Losses reach logs and checkpoints late, and all of them."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vfm_ss.engine import async_scalars
from vfm_ss.engine.train_loop import OptimStepTrainLoop

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")


class OnItsWay:
    """An event of a GPU that is never done by itself."""

    def query(self):
        return False

    def synchronize(self):
        """Arrive."""


@pytest.fixture
def slow_gpu(monkeypatch):
    monkeypatch.setattr(async_scalars, "_mark", lambda tensors: OnItsWay())


def mmengines(interval):
    """mmengine's own hook in place of ours."""
    return dict(
        runtime_info=dict(type="RuntimeInfoHook"),
        logger=dict(type="LoggerHook", interval=interval, log_metric_by_epoch=False),
        checkpoint=dict(type="AtomicCheckpointHook", by_epoch=False, interval=2, save_best="mIoU"),
    )


def ours(interval):
    return mmengines(interval) | dict(runtime_info=dict(type="AsyncRuntimeInfoHook"))


def losses_told(work_dir):
    """The losses in the log and in the checkpoint of every second step."""
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    lines = map(json.loads, log.read_text().splitlines())
    logged = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    saved = {}
    for step in (2, 4, 6):
        hub = torch.load(work_dir / f"iter_{step}.pth", weights_only=False)["message_hub"]
        saved[step] = hub["log_scalars"]["train/loss"].data[0].tolist()
    return logged, saved


@pytest.mark.parametrize("interval", [1, 3])
def test_logs_and_checkpoints_tell_the_same_as_mmengines(interval, toy, tmp_path, slow_gpu):
    toy("theirs", default_hooks=mmengines(interval)).train()
    toy("ours", default_hooks=ours(interval)).train()
    logged, saved = losses_told(tmp_path / "ours")
    assert (logged, saved) == losses_told(tmp_path / "theirs")
    assert {step for step, _ in logged} >= set(range(interval, 7, interval))
    assert {step: len(losses) for step, losses in saved.items()} == {2: 2, 4: 4, 6: 6}


@pytest.mark.parametrize(("hooks", "waiting"), [(ours, [2, 5, 10]), (mmengines, range(1, 11))])
def test_a_step_waits_for_the_gpu_only_when_somebody_reads(
    hooks, waiting, toy, slow_gpu, monkeypatch
):
    """mmengine's logger also prints after step 2, the end of the toy's first epoch."""
    steps = []

    class Watch(TorchDispatchMode):
        """Notes who asks a tensor for its values."""

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket.__name__ in WAITS:
                steps.append(runner.iter + 1)
            return function(*args, **(kwargs or {}))

    run_iter = OptimStepTrainLoop.run_iter

    def watched(loop, batch):
        with Watch():
            run_iter(loop, batch)

    monkeypatch.setattr(OptimStepTrainLoop, "run_iter", watched)
    cfg = hooks(interval=5)
    cfg["checkpoint"].update(interval=10)
    fused = dict(
        type="MixedPrecisionOptimWrapper",
        constructor="GroupedOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=0.05),
    )
    runner = toy(steps=10, default_hooks=cfg, optim_wrapper=fused)
    runner.train()
    assert sorted(set(steps)) == list(waiting)

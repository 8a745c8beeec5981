"""What mmengine's runner and its parts keep private.

Checked with mmengine 0.10.7 and onedl-mmengine 0.10.12.
"""

import time
from types import SimpleNamespace

from mmengine.hooks import CheckpointHook, iter_timer_hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader


def is_training(runner: Runner) -> bool:
    """Return whether the runner has begun to train, not to evaluate alone.

    ``runner.train_loop`` would build the loop that it is asked for.
    """
    return isinstance(runner._train_loop, BaseLoop)


def train_loop(runner: Runner) -> BaseLoop | dict | None:
    """Return the train loop, or its config where it has not been built."""
    return runner._train_loop


def resume_mode(runner: Runner) -> bool | str:
    """Return ``resume`` of the config: whether and how the runner goes on with a run.

    The config may have been changed since; mmengine goes by this value.
    """
    return runner._resume


def set_resume_mode(runner: Runner, mode: bool | str) -> None:
    """Change ``resume`` in a hook, before the runner loads a checkpoint."""
    runner._resume = mode


def load_from(runner: Runner) -> str | None:
    """Return ``load_from`` of the config, or what has been set since."""
    return runner._load_from


def set_load_from(runner: Runner, path: str) -> None:
    """Change ``load_from`` in a hook, before the runner loads it."""
    runner._load_from = path


def set_accumulation(optim_wrapper: OptimWrapper, passes: int) -> None:
    """Set the number of backward passes per optimiser step after construction."""
    optim_wrapper._accumulative_counts = passes


class OpenTrainLoop(IterBasedTrainLoop):
    """mmengine's loop, whose counter and helpers a loop with a ``run`` of its own can use."""

    def count_iter(self) -> None:
        """Count an iteration."""
        self._iter += 1

    def update_val_interval(self) -> None:
        """Take the validation interval that is due from here on (``dynamic_intervals``)."""
        self._decide_current_val_interval()

    @staticmethod
    def endless(dataloader: DataLoader):
        """Return an iterator that starts again where the dataloader ends."""
        return _InfiniteDataloaderIterator(dataloader)


class OpenCheckpointHook(CheckpointHook):
    """mmengine's hook, with public names for what a hook of ours replaces."""

    def save_now(self, runner: Runner) -> None:
        """Save a checkpoint of the step that has been made."""
        self._save_checkpoint(runner)

    def save_step_checkpoint(self, runner: Runner, step: int, meta: dict) -> None:
        """Save a checkpoint and remove old ones."""
        super()._save_checkpoint_with_step(runner, step, meta)

    def save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint where a validation gave the best score."""
        super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self.save_step_checkpoint(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self.save_best_checkpoint(runner, metrics)


def use_monotonic_timer() -> None:
    """Let mmengine's timer hook measure with a clock that is not set back within a run.

    It takes differences of the wall clock.
    """
    iter_timer_hook.time = SimpleNamespace(time=time.monotonic)

"""Detect a loss or weights that are not finite, without making the device wait."""

import math

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from .async_scalars import AsyncScalars

MODES = ("stop", "skip")
_MAX_SKIPPED = 20


class NonFiniteError(FloatingPointError):
    """A loss or weights are NaN or infinite."""


class LossGuard:
    """Watches the losses of a run.

    A loss is checked when it has arrived on the host: on a CPU at once, on a GPU a step or two
    later, and always before a checkpoint is written.

    Args:
        mode: ``'stop'`` raises; ``'skip'`` leaves the weights as they are for a step with gradients
            that are not finite (fp16's loss scaling does so by itself), warns, and raises after 20
            in a row. Skipping makes the host wait for every step.

    Raises:
        ValueError: If the mode is unknown.
    """

    def __init__(self, mode: str = "stop"):
        if mode not in MODES:
            raise ValueError(f"train_cfg.nonfinite_loss={mode!r}, use one of {', '.join(MODES)}")
        self.mode = mode
        self.skipped_in_a_row = 0
        self._losses = AsyncScalars()

    def attach(self, runner) -> None:
        """Make the optimiser skip such steps, if that is the mode."""
        wrapper: OptimWrapper = runner.optim_wrapper
        if self.mode != "skip" or isinstance(wrapper, AmpOptimWrapper):
            return
        step = wrapper.step

        def step_if_finite(**kwargs):
            # Already averaged over the processes, so that all decide alike.
            grads = [
                p.grad for g in wrapper.param_groups for p in g["params"] if p.grad is not None
            ]
            if bool(torch.stack([grad.isfinite().all() for grad in grads]).all()):
                self.skipped_in_a_row = 0
                return step(**kwargs)
            self.skipped_in_a_row += 1
            runner.logger.warning(f"Step {runner.iter + 1} is skipped: gradients are not finite.")
            if self.skipped_in_a_row >= _MAX_SKIPPED:
                raise NonFiniteError(
                    f"the gradients of {_MAX_SKIPPED} steps in a row, up to {runner.iter + 1}, are "
                    f"not finite; {_last_checkpoint(runner)}"
                )
            return None

        wrapper.step = step_if_finite

    def watch(self, runner, loss: torch.Tensor, data_samples: list) -> None:
        """Send the loss of a step to the host, and check those that have arrived."""
        names = [_name(sample) for sample in data_samples]
        self._losses.send({"loss": loss}, note=(runner.iter + 1, names))
        self._look(runner, wait=False)

    def check(self, runner, step: int, together: bool = True) -> None:
        """Check that all losses and the weights are finite before they are saved.

        Args:
            runner: The runner.
            step: Number of the step, from 1, that the weights come from.
            together: Whether all processes call this, so that each learns of the others' losses.

        Raises:
            NonFiniteError: With the step, the images and the last good checkpoint.
        """
        found = None
        try:
            self._look(runner, wait=True)
        except NonFiniteError as error:
            found = error
        broken = [n for n, p in runner.model.named_parameters() if not bool(p.isfinite().all())]
        if found is None and broken:
            found = NonFiniteError(
                f"after step {step} weights are not finite ({broken[0]} and "
                f"{len(broken) - 1} more); no checkpoint is written, {_last_checkpoint(runner)}"
            )
        if together and get_world_size() > 1:
            flag = torch.tensor(
                int(found is not None), device=next(runner.model.parameters()).device
            )
            all_reduce(flag, "max")
            if found is None and flag:
                found = NonFiniteError(
                    f"the loss of another process is not finite, see its log; "
                    f"{_last_checkpoint(runner)}"
                )
        if found is not None:
            raise found

    def _look(self, runner, wait: bool) -> None:
        for values, (step, names) in self._losses.take(wait):
            loss = values["loss"].item()
            if math.isfinite(loss):
                continue
            text = f"the loss of step {step} is {loss}; images: {', '.join(names)}"
            if self.mode == "stop":
                raise NonFiniteError(
                    f"{text}; {_last_checkpoint(runner)}. A lower optim_wrapper.optimizer.lr or "
                    "--cfg-options optim_wrapper.precision=bf16 may help; "
                    "train_cfg.nonfinite_loss=skip skips such steps"
                )
            runner.logger.warning(text)


def _last_checkpoint(runner) -> str:
    known = runner.message_hub.runtime_info.get("last_ckpt")
    return f"the last good checkpoint is {known}" if known else "there is no checkpoint yet"


def _name(sample) -> str:
    return str(getattr(sample, "metainfo", {}).get("img_path", "an image without img_path"))

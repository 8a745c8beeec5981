from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmseg.registry import HOOKS

from ..async_scalars import AsyncScalars


@HOOKS.register_module()
class AsyncRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook that puts losses into the message hub, without waiting for them.

    mmengine turns the losses of every step into Python numbers, for which the host waits until the
    GPU has nothing left to do. Here they enter the hub, in the same order, when they have arrived,
    and are waited for only before a log, a validation, a checkpoint and the end of training.
    """

    def __init__(self):
        self._losses = AsyncScalars()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Send the losses of a step to the host and take those that have arrived."""
        self._losses.send(outputs or {})
        self._take(runner, wait=self._is_read_now(runner, batch_idx))

    def before_val(self, runner) -> None:
        """Wait for the losses; see mmengine's hook."""
        self._take(runner, wait=True)
        super().before_val(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save the losses of all steps."""
        if self._take(runner, wait=True):
            checkpoint["message_hub"] = runner.message_hub.state_dict()

    def after_train(self, runner) -> None:
        """Wait for the losses; see mmengine's hook."""
        self._take(runner, wait=True)
        super().after_train(runner)

    def _is_read_now(self, runner, batch_idx: int) -> bool:
        """Return whether a logger prints after this step."""
        return self.end_of_epoch(runner.train_dataloader, batch_idx) or any(
            self.every_n_inner_iters(batch_idx, hook.interval)
            for hook in runner.hooks
            if isinstance(hook, LoggerHook)
        )

    def _take(self, runner, wait: bool) -> bool:
        """Put the losses that have arrived into the message hub; returns whether there were any."""
        found = False
        for losses, _ in self._losses.take(wait):
            found = True
            for key, value in losses.items():
                runner.message_hub.update_scalar(f"train/{key}", value)
        return found

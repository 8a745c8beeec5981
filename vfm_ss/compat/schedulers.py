"""What mmengine's schedules keep private.

Checked with mmengine 0.10.7 and onedl-mmengine 0.10.12.
"""

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin


class OpenLRScheduler(LRSchedulerMixin, _ParamScheduler):
    """A schedule of learning rates whose subclass says the factor of each step."""

    def factor(self, step: int) -> float:
        """Return what the optimiser's rates are multiplied by.

        Args:
            step: Number of steps made since ``begin``, from 0.
        """
        raise NotImplementedError

    def _get_value(self) -> list[float]:
        factor = self.factor(self.last_step)
        return [rate * factor for rate in self.base_values]

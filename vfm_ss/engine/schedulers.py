import math

from mmengine.optim import PolyLR
from mmengine.runner import Runner
from mmseg.registry import PARAM_SCHEDULERS

from vfm_ss.compat.schedulers import OpenLRScheduler


@PARAM_SCHEDULERS.register_module()
class FullPolyLR(PolyLR):
    """Poly decay whose last step still learns: ``lr * (1 - step / steps) ** power``.

    mmengine's ``PolyLR`` reaches ``eta_min`` at the last step, which is wasted where ``eta_min``
    is 0. This is the rule of ``torch.optim.lr_scheduler.PolynomialLR``, which the authors use.

    Args:
        *args: See mmengine's ``PolyLR``.
        end: Number of optimiser steps; mmengine fills in those of the train loop.
        **kwargs: See mmengine's ``PolyLR``.
    """

    def __init__(self, *args, end: int, **kwargs):
        super().__init__(*args, end=end + 1, **kwargs)


@PARAM_SCHEDULERS.register_module()
class WarmupOneCycleLR(OpenLRScheduler):
    """The schedule of DINOv3's linear segmentation evaluation.

    After the warm-up it is the falling half of ``torch.optim.lr_scheduler.OneCycleLR`` from the
    optimiser's rate to 0, begun at step 0 (``pct_start=0.0, final_div_factor=inf``). The warm-up
    rises linearly, times a linear decay to 0 over all steps, so that it ends below the cosine that
    follows: 0.963 and 0.997 of the rate with 1,500 of 40,000 steps. As in the release, the second
    step has the rate of the first and the others are one step late.

    Args:
        optimizer: The optimiser, or its wrapper.
        warmup: Steps of the warm-up, fewer than all.
        warmup_ratio: Share of the rate at the first step.
        end: Number of optimiser steps; mmengine fills in those of the train loop.
        **kwargs: See mmengine's schedules (``begin``, ``by_epoch``, ...).

    Raises:
        ValueError: If training would end within the warm-up.
    """

    eta_min = 0.0  # what `check_schedules` asks for

    def __init__(
        self,
        optimizer,
        *,
        warmup: int,
        end: int,
        warmup_ratio: float = 1e-6,
        begin: int = 0,
        **kwargs,
    ):
        self.steps = end - begin
        if not 0 <= warmup < self.steps:
            raise ValueError(
                f"param_scheduler.warmup={warmup} must be fewer than the {self.steps} steps of the "
                f"training; DINOv3's share is {round(self.steps * 3 / 80)} (1,500 of 40,000)"
            )
        self.warmup, self.warmup_ratio = warmup, warmup_ratio
        super().__init__(optimizer, begin=begin, end=end, **kwargs)

    def factor(self, step: int) -> float:
        """Return what the optimiser's rate is multiplied by in a step, from 0."""
        late = max(step - 1, 0)
        if late >= self.warmup:
            return (1 + math.cos(math.pi * (late + 1) / self.steps)) / 2
        rise = self.warmup_ratio + (1 - self.warmup_ratio) * late / self.warmup
        return rise * (1 - late / self.steps)


def check_schedules(runner: Runner) -> None:
    """Refuse schedules that a run of optimiser steps cannot follow.

    Raises:
        ValueError: If one counts epochs, or the last one leaves a rate of 0 before training ends.
    """
    schedulers = [s for s in runner.param_schedulers or () if s.param_name == "lr"]
    for scheduler in schedulers:
        if scheduler.by_epoch:
            raise ValueError(
                f"param_scheduler {type(scheduler).__name__} counts epochs (by_epoch=True is "
                "mmengine's default), so it would not change the rate once; set by_epoch=False"
            )
    decays = [s for s in schedulers if getattr(s, "eta_min", None) is not None]
    last = max(schedulers, key=lambda s: s.end, default=None)
    if not decays or last not in decays:
        return
    steps, name = runner.max_iters, type(last).__name__
    if last.end < steps and last.eta_min == 0:
        raise ValueError(
            f"param_scheduler {name} ends at step {last.end} with a rate of 0, so the other steps "
            f"up to train_cfg.max_iters={steps} would learn nothing; set its end={steps}"
        )
    if last.end > steps + 1:
        runner.logger.warning(
            f"param_scheduler {name} ends at step {last.end}, training at step {steps}: the rate "
            f"stops above {last.eta_min}; with end={steps} it would go all the way."
        )

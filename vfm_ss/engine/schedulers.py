from mmengine.optim import PolyLR
from mmengine.runner import Runner
from mmseg.registry import PARAM_SCHEDULERS


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

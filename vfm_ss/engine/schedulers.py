from mmengine.optim import PolyLR
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

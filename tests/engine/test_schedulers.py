import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import PARAM_SCHEDULERS


@pytest.mark.parametrize(("steps", "power"), [(10, 0.9), (7, 2.0), (1, 0.9)])
def test_it_is_torchs_polynomial_decay_and_never_reaches_zero(steps, power):
    def optimizer():
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-4, 1e-5)]
        return torch.optim.AdamW(groups)

    ours, theirs = optimizer(), optimizer()
    schedule = PARAM_SCHEDULERS.build(
        dict(type="FullPolyLR", power=power, eta_min=0.0, by_epoch=False, end=steps),
        default_args=dict(optimizer=OptimWrapper(ours)),
    )
    reference = torch.optim.lr_scheduler.PolynomialLR(theirs, steps, power)
    for _ in range(steps):
        for group, expected in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(expected["lr"], rel=1e-9)
            assert group["lr"] > 0
        ours.step()
        theirs.step()
        schedule.step()
        reference.step()

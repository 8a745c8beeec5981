import math

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


def rates(lr, steps, warmup, **arguments):
    """The learning rate of every step, as a run makes them."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr, weight_decay=1e-3)
    cfg = dict(type="WarmupOneCycleLR", warmup=warmup, by_epoch=False, end=steps, **arguments)
    schedule = PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=OptimWrapper(optimizer)))
    found = []
    for _ in range(steps):
        assert optimizer.param_groups[0]["weight_decay"] == 1e-3
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def of_torch(lr, schedulers, steps):
    """The rates of torch's schedulers, chained."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    schedule = torch.optim.lr_scheduler.ChainedScheduler([s(optimizer) for s in schedulers])
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


class TestWarmupOneCycle:
    @pytest.mark.parametrize(("steps", "warmup"), [(4000, 150), (80, 3), (9, 0)])
    def test_it_is_made_of_torchs_schedules(self, steps, warmup):
        """One step late, as in DINOv3's release, whose first two steps have one rate."""
        ours = rates(1e-3, steps, warmup)
        cosine = of_torch(
            1e-3,
            [lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 1e-3, steps, pct_start=0.0, final_div_factor=math.inf, cycle_momentum=False)],
            steps,
        )  # fmt: skip
        assert ours[0] == ours[1]
        assert ours[warmup + 1 :] == pytest.approx(cosine[warmup:-1], rel=1e-9, abs=1e-18)
        if warmup:
            rise = of_torch(
                1e-3,
                [lambda o: torch.optim.lr_scheduler.LinearLR(o, 1e-6, total_iters=warmup),
                 lambda o: torch.optim.lr_scheduler.PolynomialLR(o, steps, power=1.0)],
                warmup,
            )  # fmt: skip
            assert ours[1 : warmup + 1] == pytest.approx(rise, rel=1e-9)
        assert min(ours) > 0
        assert ours[-1] < 0.1 * max(ours)

    def test_dinov3_s_numbers(self):
        """40,000 steps, warm-up of 1,500 from a millionth: computed by hand from the rule."""
        ours = rates(1e-3, 40_000, 1500)
        assert ours[:2] == [pytest.approx(1e-9)] * 2
        assert ours[2] == pytest.approx(1e-3 * (1e-6 + (1 - 1e-6) / 1500) * (1 - 1 / 40_000))
        assert ours[1500] == pytest.approx(1e-3 * 1499 / 1500 * (1 - 1499 / 40_000), rel=1e-6)
        assert ours[1501] == pytest.approx(5e-4 * (1 + math.cos(math.pi * 1501 / 40_000)))
        assert ours[20_000] == pytest.approx(5e-4)
        assert ours[-1] == pytest.approx(5e-4 * (1 + math.cos(math.pi * 39_999 / 40_000)))
        assert 0.996e-3 < max(ours) < 0.997e-3

    def test_its_state_is_plain_and_goes_on(self, tmp_path):
        def make():
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
            cfg = dict(type="WarmupOneCycleLR", warmup=3, by_epoch=False, end=20)
            return optimizer, PARAM_SCHEDULERS.build(
                cfg, default_args=dict(optimizer=OptimWrapper(optimizer))
            )

        optimizer, schedule = make()
        for _ in range(7):
            optimizer.step()
            schedule.step()
        torch.save([schedule.state_dict(), optimizer.state_dict()], tmp_path / "state.pth")
        other, resumed = make()
        saved, groups = torch.load(tmp_path / "state.pth", weights_only=True)
        resumed.load_state_dict(saved)
        other.load_state_dict(groups)
        for _ in range(5):
            for o, s in ((optimizer, schedule), (other, resumed)):
                o.step()
                s.step()
            assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

    def test_a_training_within_the_warm_up_is_refused(self):
        with pytest.raises(ValueError, match=r"warmup=1500 must be fewer than the 1000 .* 38"):
            rates(1e-3, 1000, 1500)

    def test_one_that_ends_before_the_training_is_refused(self, toy):
        schedule = dict(type="WarmupOneCycleLR", warmup=1, by_epoch=False, end=4)
        with pytest.raises(ValueError, match="WarmupOneCycleLR ends at step 4 with a rate of 0"):
            toy(param_scheduler=schedule, steps=6).train()

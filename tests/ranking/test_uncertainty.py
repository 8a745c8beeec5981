import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.agreement import scores
from vfm_ss.ranking.uncertainty import noise, order_certainty, tau_interval

SIMULATION = runpy.run_path(
    str(Path(__file__).parents[2] / "tools" / "benchmarks" / "tau_coverage.py")
)


def cells(table):
    """One setting from ``{vfm: [score of every seed]}``."""
    runs = [Run("s", v, i, x, "") for v, xs in table.items() for i, x in enumerate(xs)]
    return scores(runs).loc["s"]


@pytest.mark.parametrize("scenario", SIMULATION["SCENARIOS"])
def test_the_interval_covers_the_true_tau(scenario):
    trials = 150
    share, width = SIMULATION["coverage"](SIMULATION["SCENARIOS"][scenario], trials, draws=300)
    # With 150 trials at 95 %, fewer than 135 happen by chance once in 500 times.
    assert share * trials >= 135
    assert width < 0.85  # an interval of -1 to 1 would cover as well


def test_the_interval_narrows_as_seeds_agree():
    rng = np.random.default_rng(0)
    x = np.arange(10.0)
    widths = []
    for sigma in (0.01, 0.5, 2.0):
        measure = SIMULATION["measure"]
        low, high = tau_interval(measure(x, sigma, 3, rng), measure(x, sigma, 3, rng))
        widths.append(high - low)
    assert widths[0] == 0
    assert widths[0] < widths[1] < widths[2]


def test_identical_seeds_give_a_point():
    x = noise(cells({"a": [1, 1], "b": [2, 2], "c": [3, 3]}))
    y = noise(cells({"a": [1, 1], "b": [3, 3], "c": [2, 2]}))
    assert tau_interval(x, x) == (1, 1)
    assert tau_interval(x, y) == pytest.approx((1 / 3, 1 / 3))


def test_reversed_rankings_reach_minus_one():
    x = noise(cells({"a": [1.0, 1.1], "b": [1.1, 1.0], "c": [3.0, 3.3], "d": [5.0, 5.1]}))
    y = noise(cells({"a": [5.0, 5.1], "b": [4.9, 5.2], "c": [3.0, 3.3], "d": [1.0, 1.1]}))
    low, high = tau_interval(x, y)
    assert low == -1
    assert high < 0


def test_too_few_seeds_or_models_give_no_interval():
    one = noise(cells({"a": [1], "b": [2], "c": [3]}))
    two = noise(cells({"a": [1, 2], "b": [2, 3], "c": [3, 4]}))
    assert tau_interval(one, two) is None
    assert order_certainty(one) is None
    assert tau_interval(two.only(["a"]), two.only(["a"])) is None
    assert tau_interval(two, two) is not None
    with pytest.raises(ValueError, match="not the same VFMs"):
        tau_interval(two, two.only(["a", "b"]))


def test_a_single_seed_takes_the_noise_of_the_others():
    x = noise(cells({"a": [1.0, 1.4], "b": [1.1], "c": [5.0, 5.4], "d": [9.0, 9.4]}))
    drawn = x.draw(20_000, np.random.default_rng(0))
    sigma = np.sqrt(x.variance)
    assert sigma == pytest.approx(np.std([1.0, 1.4], ddof=1))
    assert drawn.mean(0) == pytest.approx(x.means, abs=0.01)
    assert drawn.std(0) == pytest.approx(sigma / np.sqrt([2, 1, 2, 2]), rel=0.03)


def test_order_certainty_matches_the_normal_distribution():
    rng = np.random.default_rng(3)
    table = {f"far{i}": list(100 + 10 * i + rng.normal(size=50)) for i in range(4)}
    close = rng.normal(size=50)
    close -= close.mean()
    table |= {"low": list(close), "high": list(close + 0.2)}
    pairs = order_certainty(noise(cells(table)), draws=20_000)
    first = pairs.iloc[0]
    assert (first["higher"], first["lower"]) == ("high", "low")
    assert first["difference"] == pytest.approx(0.2)
    # The difference of two means of 50 seeds has a standard deviation of sigma * sqrt(2 / 50).
    sigma = np.sqrt(noise(cells(table)).variance)
    assert first["certainty"] == pytest.approx(norm.cdf(0.2 / (sigma * 0.2)), abs=0.01)
    assert pairs["certainty"].iloc[1:].eq(1).all()
    assert len(pairs) == 15

"""How often the 95 % interval of Kendall's tau holds the true tau, by simulation.

    python tools/benchmarks/tau_coverage.py --trials 1000

Ten models get true scores under two settings; seeds scatter around them; the interval from the
seeds either holds the tau of the true scores or not.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from vfm_ss.ranking.uncertainty import Noise, tau_interval


@dataclass(frozen=True)
class Scenario:
    """A simulated pair of settings, all in points of mIoU.

    Attributes:
        gap: Mean distance of neighbours in the ranking.
        change: Standard deviation of what a model gains or loses between the settings.
        sigma: Standard deviation of a seed.
        seeds: Number of seeds.
        unequal: Whether models differ in how much their seeds scatter (from 0.3 to 2.5 times).
    """

    gap: float
    change: float
    sigma: float
    seeds: int
    unequal: bool = False


SCENARIOS = {
    "clear": Scenario(1.0, 1.5, 0.3, 3),
    "close": Scenario(0.3, 0.5, 0.4, 3),
    "same ranking": Scenario(0.6, 0.0, 0.4, 3),
    "same ranking, close": Scenario(0.2, 0.0, 0.4, 3),
    "unequal noise": Scenario(0.6, 0.7, 0.4, 3, unequal=True),
    "two seeds": Scenario(0.6, 0.7, 0.4, 2),
    "five seeds": Scenario(0.3, 0.5, 0.4, 5),
}


def measure(means: np.ndarray, sigma, seeds: int, rng: np.random.Generator) -> Noise:
    """Draw seeds around true means, shape (N,), and return what a setting's runs would tell."""
    values = means[:, None] + rng.normal(size=(len(means), seeds)) * np.reshape(sigma, (-1, 1))
    residuals = (values - values.mean(1, keepdims=True)) * np.sqrt(seeds / (seeds - 1))
    names = tuple(f"model {i}" for i in range(len(means)))
    counts = np.full(len(means), seeds)
    return Noise(names, values.mean(1), counts, residuals.ravel(), len(means) * (seeds - 1))


def coverage(s: Scenario, trials: int, draws: int = 1000, models: int = 10, seed: int = 0):
    """Return (share of intervals that hold the true tau, their mean width)."""
    rng = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(trials):
        x = np.cumsum(rng.exponential(s.gap, models))
        y = x + rng.normal(0, s.change, models)
        sigma = s.sigma * rng.choice([0.3, 1, 2.5], models) if s.unequal else s.sigma
        low, high = tau_interval(
            measure(x, sigma, s.seeds, rng), measure(y, sigma, s.seeds, rng), draws
        )
        held += low - 1e-9 <= kendalltau(x, y).statistic <= high + 1e-9
        widths.append(high - low)
    return held / trials, float(np.mean(widths))


def main() -> None:
    """Print a table of all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    args = parser.parse_args()
    print("| scenario | gap | change | sigma | seeds | coverage | mean width |")
    print("|---|---|---|---|---|---|---|")
    for name, s in SCENARIOS.items():
        held, width = coverage(s, args.trials)
        print(
            f"| {name} | {s.gap} | {s.change} | {s.sigma} | {s.seeds} | {held:.3f} | {width:.2f} |"
        )


if __name__ == "__main__":
    main()

"""How often the intervals of "Do settings interact?" hold the truth, on made-up scores.

A grid of two by two settings, five models and three seeds; the changes add up but for an
interaction of so many points of mIoU from model to model.
"""

import argparse

import numpy as np

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.agreement import scores
from vfm_ss.ranking.factors import setting_factors
from vfm_ss.ranking.interaction import interactions
from vfm_ss.ranking.uncertainty import noise
from vfm_ss.ranking.variance import variances

SETTINGS = ("b16_linear_x", "b16_probe_x", "b16_linear_x_f4", "b16_probe_x_f4")
MODELS, SEEDS, SIGMA = 5, 3, 0.5


def truth(interaction: float) -> np.ndarray:
    """Return true scores, shape (models, settings)."""
    model = np.arange(MODELS)[:, None]
    alone = np.array([0.0, -5.0, -2.0, -7.0]) - 3 * model
    return 50 + alone + interaction * (model - (MODELS - 1) / 2) * np.array([0, 0, 0, 1])


def trial(true: np.ndarray, rng: np.random.Generator) -> list[bool]:
    """Return whether each interval holds the truth."""
    cells = scores(
        Run(setting, f"m{v}", k, true[v, s] + SIGMA * rng.normal(), "")
        for v in range(MODELS)
        for s, setting in enumerate(SETTINGS)
        for k in range(SEEDS)
    )
    scatter = {name: noise(cells.loc[name]) for name in SETTINGS}
    known, means = setting_factors(cells), cells["mean"].unstack("setting")[list(SETTINGS)]
    (pair,) = interactions(means, scatter, known, SETTINGS[0])
    (variance,) = variances(cells, scatter, known, SETTINGS[0])
    error = true[:, 3] - true[:, 1] - true[:, 2] + true[:, 0]
    shares = variance.shares.set_index(variance.shares["term"].map(len))
    three = shares.loc[3]
    # The share of the true scores and seeds of that variance.
    effect = (error - error.mean()) / 4
    squares = 4 * float((effect**2).sum())
    total = float(((true - true.mean()) ** 2).sum()) + true.size * SIGMA**2
    values = [(error.mean(), pair.bias[1]), (np.sqrt((error**2).mean()), pair.rmse[1])]
    values += [(squares / total, (three["low"], three["high"]))]
    return [low - 1e-9 <= value <= high + 1e-9 for value, (low, high) in values]


def main() -> None:
    """Print a row for every interaction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    trials = parser.parse_args().trials
    print("| interaction per model | mean error | RMSE | share of model × both factors |")
    print("|---|---|---|---|")
    for interaction in (0.0, 0.5, 2.0):
        rng = np.random.default_rng(0)
        held = np.mean([trial(truth(interaction), rng) for _ in range(trials)], axis=0)
        print(f"| {interaction:g} | {' | '.join(f'{share:.3f}' for share in held)} |")


if __name__ == "__main__":
    main()

"""How sure a ranking is: bootstrap over seeds.

A setting's seeds scatter around the mean of their VFM. These residuals, scaled to the variance of
the sample, are pooled over the setting's VFMs: three seeds of one model alone say too little. One
draw gives every VFM as many residuals as it has seeds, and so a new mean.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.stats import f as f_distribution

from vfm_ss.ranking.agreement import tau_b

LEVEL = 0.95
DRAWS = 2000
_MIN_FREEDOM = 3  # residual degrees of freedom below which no interval is given


@dataclass(frozen=True)
class Noise:
    """Scores of one setting and how they scatter over seeds.

    Attributes:
        vfms: The VFMs, in the order of the arrays.
        means: Mean score of every VFM, shape (N,).
        seeds: Number of seeds of every VFM, shape (N,).
        residuals: Pooled residuals of all seeds, shape (R,).
        freedom: Their degrees of freedom, the sum of seeds - 1.
    """

    vfms: tuple[str, ...]
    means: np.ndarray
    seeds: np.ndarray
    residuals: np.ndarray
    freedom: int

    @property
    def known(self) -> bool:
        """Whether there are enough seeds to say anything."""
        return self.freedom >= _MIN_FREEDOM

    @property
    def variance(self) -> float:
        """Variance of one seed."""
        return float(np.mean(self.residuals**2))

    def only(self, vfms) -> "Noise":
        """Keep these VFMs; the residuals stay those of the whole setting."""
        index = [self.vfms.index(vfm) for vfm in vfms]
        return Noise(
            tuple(vfms), self.means[index], self.seeds[index], self.residuals, self.freedom
        )

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw means, shape (draws, N)."""
        total = np.zeros((draws, len(self.vfms)))
        for k in range(self.seeds.max()):
            drawn = rng.choice(self.residuals, total.shape)
            total += np.where(k < self.seeds, drawn, 0.0)
        return self.means + total / self.seeds


def noise(cells: pd.DataFrame) -> Noise:
    """Measure the scatter over seeds of one setting.

    Args:
        cells: One setting's rows of `agreement.scores`, indexed by VFM.
    """
    residuals = []
    for mean, runs in zip(cells["mean"], cells["runs"], strict=True):
        if len(runs) > 1:
            scale = np.sqrt(len(runs) / (len(runs) - 1))
            residuals += [(run.miou - mean) * scale for run in runs]
    seeds = cells["seeds"].to_numpy()
    return Noise(
        tuple(cells.index),
        cells["mean"].to_numpy(float),
        seeds,
        np.array(residuals),
        int((seeds - 1).sum()),
    )


def tau_interval(x: Noise, y: Noise, draws: int = DRAWS, seed: int = 0) -> tuple | None:
    """Return a 95 % confidence interval of Kendall's tau between two settings.

    The percentile bootstrap adds the seeds' noise once more to scores that already carry it. That
    can only pull rankings apart, so where the true rankings are the same it would rarely say so.
    The interval is therefore extended to 1 where one common order of the models explains both
    settings, as judged by an F test of the distance to the nearest such scores, and likewise to -1
    with one setting reversed. ``tests/ranking/test_uncertainty.py`` checks the coverage.

    Args:
        x: Scores of one setting.
        y: Scores of the other; the same VFMs in the same order.
        draws: Number of bootstrap draws.
        seed: Seed of the draws, so that a report can be repeated.

    Returns:
        (low, high), or None where there are too few seeds or models.
    """
    if x.vfms != y.vfms:
        raise ValueError(f"not the same VFMs in the same order: {x.vfms} and {y.vfms}")
    if not (x.known and y.known) or len(x.vfms) < 2:
        return None
    rng = np.random.default_rng(seed)
    taus = tau_b(x.draw(draws, rng), y.draw(draws, rng))
    if np.isnan(taus).all():
        return None
    tail = (1 - LEVEL) / 2
    measured = tau_b(x.means[None], y.means[None])
    low, high = np.nanquantile(taus, [tail, 1 - tail])
    low, high = np.nanmin([low, *measured]), np.nanmax([high, *measured])
    if _one_order_fits(x, y, 1):
        high = 1.0
    if _one_order_fits(x, y, -1):
        low = -1.0
    return float(low), float(high)


def order_certainty(x: Noise, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame | None:
    """Return how often every pair of VFMs keeps its order when the seeds are drawn again.

    Returns:
        Columns ``higher``, ``lower``, ``difference`` (of the means) and ``certainty`` (0.5 to 1),
        the least certain pair first; None where there are too few seeds.
    """
    if not x.known or len(x.vfms) < 2:
        return None
    order = np.argsort(-x.means, kind="stable")
    drawn = x.draw(draws, np.random.default_rng(seed))[:, order]
    means, vfms = x.means[order], [x.vfms[i] for i in order]
    rows = []
    for i in range(len(vfms)):
        above = (drawn[:, [i]] > drawn[:, i + 1 :]) + 0.5 * (drawn[:, [i]] == drawn[:, i + 1 :])
        for j, certainty in enumerate(above.mean(0), start=i + 1):
            rows.append((vfms[i], vfms[j], means[i] - means[j], float(certainty)))
    table = pd.DataFrame(rows, columns=["higher", "lower", "difference", "certainty"])
    return table.sort_values(["certainty", "difference"], ignore_index=True)


def _one_order_fits(x: Noise, y: Noise, sign: int) -> bool:
    """Whether scores in one common order (reversed for sign -1) explain both settings' means."""
    sides = [(x.means, x), (sign * y.means, y)]
    # A tiny floor lets identical seeds pass as exact instead of dividing by zero.
    sigmas = [np.sqrt(max(side.variance, 1e-18)) for _, side in sides]
    order = np.argsort(sum(means / sigma for (means, _), sigma in zip(sides, sigmas, strict=True)))
    distance = 0.0
    for (means, side), sigma in zip(sides, sigmas, strict=True):
        weights = side.seeds[order].astype(float)
        fit = isotonic_regression(means[order], weights=weights).x
        distance += (weights * ((means[order] - fit) / sigma) ** 2).sum()
    n = len(x.means)
    return distance / n <= f_distribution.ppf(0.5 + LEVEL / 2, n, x.freedom + y.freedom)

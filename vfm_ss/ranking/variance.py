"""What scores vary with: the VFM, two factors of the settings, and their interactions.

An analysis of variance over a grid of settings, with seeds as repetitions, by statsmodels.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from vfm_ss.ranking.interaction import changes, without_noise
from vfm_ss.ranking.uncertainty import Noise

_MIN_MODELS = 3
_DRAWS = 1000
#: The terms, by what they consist of; the columns are ``vfm``, ``first`` and ``second``.
TERMS = tuple(term for size in (1, 2, 3) for term in combinations(("vfm", "first", "second"), size))


@dataclass(frozen=True)
class Variance:
    """Shares of the variance of scores over a grid of two factors.

    Attributes:
        factors: Names of the two factors.
        settings: The settings of the grid: every value of one factor with every one of the other.
        vfms: The VFMs that are finished under all of them.
        balanced: Whether all have equally many seeds; else shares need not add up to 1.
        shares: ``term`` (of `TERMS`; ``()`` for the seeds), ``share`` (sum of squares over the
            total one), ``low`` and ``high`` (its 95 % interval, None where seeds are too few, and
            for the seeds' own) and ``p_value`` (F test against the seeds, None without
            repetitions).
    """

    factors: tuple[str, str]
    settings: tuple[str, ...]
    vfms: tuple[str, ...]
    balanced: bool
    shares: pd.DataFrame


def variances(
    cells: pd.DataFrame,
    scatter: dict[str, Noise],
    known: dict[str, dict[str, object]],
    baseline: str,
) -> list[Variance]:
    """Share out the variance for every pair of factors that vary together.

    Args:
        cells: Scores, see `agreement.scores`.
        scatter: Noise of every setting, see `uncertainty.noise`.
        known: Factors of every setting, see `factors.setting_factors`.
        baseline: The setting around which the grids lie: all else is as in it.

    Returns:
        The pairs with a grid of at least two by two settings and three VFMs.
    """
    changed = {baseline: {}, **changes(cells.index.unique("setting"), known, baseline)}
    factors = list(dict.fromkeys(f for change in changed.values() for f in change))
    found = []
    for pair in combinations(factors, 2):
        at = {
            tuple(change.get(f, "") for f in pair): setting
            for setting, change in changed.items()
            if change.keys() <= set(pair)
        }
        grid = _whole_grid(at)
        if grid:
            vfms = _common(cells, list(grid.values()))
            if len(vfms) >= _MIN_MODELS:
                found.append(_share_out(cells, scatter, pair, grid, vfms))
    return found


def _whole_grid(at: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Leave out values of the factors until every combination is there; {} without one."""
    while True:
        sides = [list(dict.fromkeys(key[i] for key in at)) for i in (0, 1)]
        if min(map(len, sides), default=0) < 2:
            return {}
        if len(at) == len(sides[0]) * len(sides[1]):
            return at
        # The value with the largest share of gaps, never the baseline's.
        gaps = {
            (i, value): 1 - sum(key[i] == value for key in at) / len(sides[1 - i])
            for i in (0, 1)
            for value in sides[i]
            if value
        }
        i, worst = max(gaps, key=lambda key: gaps[key])
        at = {key: setting for key, setting in at.items() if key[i] != worst}


def _common(cells: pd.DataFrame, settings: list[str]) -> list[str]:
    means = cells["mean"].unstack("setting")[settings].dropna()
    return list(means.index)


def _share_out(cells, scatter, pair, grid, vfms) -> Variance:
    rows = [
        (vfm, *at, setting, run.miou)
        for at, setting in grid.items()
        for vfm in vfms
        for run in cells.loc[(setting, vfm), "runs"]
    ]
    table = pd.DataFrame(rows, columns=["vfm", "first", "second", "setting", "miou"])
    counts = table.groupby(["vfm", "setting"]).size()
    shares = _anova(table)
    limits = [(None, None)] * len(shares)
    if all(scatter[setting].known for setting in grid.values()):
        drawn = _draw(table, scatter)
        limits = [without_noise(r.share, drawn[r.term]) for r in shares.itertuples() if r.term]
        limits = [(min(1.0, low), min(1.0, high)) for low, high in limits] + [(None, None)]
    shares[["low", "high"]] = pd.DataFrame(limits, dtype=object)
    return Variance(pair, tuple(grid.values()), tuple(vfms), counts.nunique() == 1, shares)


def _anova(table: pd.DataFrame) -> pd.DataFrame:
    """Return share and p-value of every term, by statsmodels (sums of squares of type II)."""
    from statsmodels.formula.api import ols  # a second to import: only where it is needed
    from statsmodels.stats.anova import anova_lm

    repeated = len(table) > len(table.groupby(["vfm", "first", "second"]))
    # Without repetitions all that is left is the interaction of all three, and noise.
    right = "C(vfm) * C(first) * C(second)" if repeated else "(C(vfm) + C(first) + C(second)) ** 2"
    found = anova_lm(ols(f"miou ~ {right}", table).fit(), typ=2)
    total = float(((table["miou"] - table["miou"].mean()) ** 2).sum())
    rows = []
    for term in TERMS if repeated else TERMS[:-1]:
        row = found.loc[":".join(f"C({part})" for part in term)]
        p = float(row["PR(>F)"]) if repeated else np.nan
        rows.append((term, float(row["sum_sq"]), None if np.isnan(p) else p))
    rest = float(found.loc["Residual", "sum_sq"])
    rows += [((), rest, None)] if repeated else [(TERMS[-1], rest, None), ((), 0.0, None)]
    rows = [(term, squares / total if total > 0 else 0.0, p) for term, squares, p in rows]
    return pd.DataFrame(rows, columns=["term", "share", "p_value"], dtype=object)


def _draw(table: pd.DataFrame, scatter: dict[str, Noise]) -> dict[tuple, np.ndarray]:
    """Draw seeds again: the sums of squares of `_anova`, for many tables."""
    rng = np.random.default_rng(0)
    cell = table.groupby(["vfm", "setting"])["miou"].transform("mean").to_numpy()
    noise = np.stack([rng.choice(scatter[s].residuals, _DRAWS) for s in table["setting"]])
    y = cell[:, None] + noise
    y = y - y.mean(0)
    total = (y**2).sum(0)
    blocks = {term: _dummies(table, term) for term in TERMS}
    left = {}
    for term in TERMS:
        others = [block for t, block in blocks.items() if not set(term) <= set(t)]
        left[term] = _residual(others, y) - _residual([*others, blocks[term]], y)
    return {term: squares / np.where(total > 0, total, 1) for term, squares in left.items()}


def _dummies(table: pd.DataFrame, term: tuple[str, ...]) -> np.ndarray:
    groups = table.groupby(list(term), sort=False).ngroup().to_numpy()
    return (groups[:, None] == np.unique(groups)).astype(float)


def _residual(blocks: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Return the sum of squares that the columns of some blocks do not explain."""
    x = np.hstack([np.ones((len(y), 1)), *blocks])
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    basis = u[:, s > s[0] * 1e-10]
    return ((y - basis @ (basis.T @ y)) ** 2).sum(0)

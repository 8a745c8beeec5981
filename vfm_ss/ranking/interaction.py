"""Do settings interact? What two changes do together, against what each does alone.

The baseline D, a setting A that changes one factor of it, B that changes another, and the setting
that changes both. Where changes add up, a model's score under both is A + B - D.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from vfm_ss.ranking.agreement import Agreement, agreement
from vfm_ss.ranking.uncertainty import DRAWS, LEVEL, Noise, tau_interval

_MIN_MODELS = 3
_DATA = ("training data", "evaluation data")
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Tau:
    """Kendall's tau between two rankings; its interval is None where seeds are too few."""

    agreement: Agreement
    interval: Interval


@dataclass(frozen=True)
class Interaction:
    """Two changes of the baseline, alone and together.

    Everything is over the VFMs that are finished under all four settings.

    Attributes:
        factors: Names of the two factors.
        first: Setting that changes the first factor alone.
        second: Setting that changes the second factor alone.
        both: Setting that changes both.
        scores: Per VFM ``predicted`` (the additive model's score under ``both``), ``measured`` and
            ``error`` (measured - predicted), in points of mIoU.
        changes: Mean change of the score against the baseline, in points of mIoU, of ``first``,
            ``second``, ``both`` and ``additive``.
        taus: Agreement with the ranking under the baseline, of the same four.
        predicted_tau: Agreement of the predicted ranking with the measured one.
        bias: Mean error, and its 95 % interval.
        rmse: Root of the mean square of the errors, and its 95 % interval without the seeds' noise.
        seeds_rmse: What it would be of the seeds' noise alone; None where seeds are too few.
    """

    factors: tuple[str, str]
    first: str
    second: str
    both: str
    scores: pd.DataFrame
    changes: dict[str, float]
    taus: dict[str, Tau]
    predicted_tau: Tau
    bias: tuple[float, Interval]
    rmse: tuple[float, Interval]
    seeds_rmse: float | None


@dataclass(frozen=True)
class _Additive(Noise):
    """The additive model's scores, with the noise of the three settings that they come from."""

    parts: tuple[Noise, Noise, Noise]  # first, second, baseline

    @property
    def known(self) -> bool:
        """Whether there are enough seeds of each."""
        return all(part.known for part in self.parts)

    @property
    def variance(self) -> float:
        """Sum of the variances of one seed of each."""
        return sum(part.variance for part in self.parts)

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw predictions, shape (draws, N)."""
        first, second, baseline = (part.draw(draws, rng) for part in self.parts)
        return first + second - baseline


def interactions(
    means: pd.DataFrame,
    scatter: dict[str, Noise],
    known: dict[str, dict[str, object]],
    baseline: str,
) -> list[Interaction]:
    """Find every pair of changes of the baseline that were also made together.

    Args:
        means: Mean scores, VFMs in rows and settings in columns, NaN for gaps.
        scatter: Noise of every setting, see `uncertainty.noise`.
        known: Factors of every setting, see `factors.setting_factors`.
        baseline: The setting that is changed.

    Returns:
        The pairs with at least three VFMs under all four settings, in the order of the settings.
    """
    changed = changes(means.columns, known, baseline)
    by_change = {tuple(sorted(c.items())): setting for setting, c in changed.items()}
    single = {setting: c for setting, c in changed.items() if len(c) == 1}
    found = []
    for (a, change), (b, other) in combinations(single.items(), 2):
        both = by_change.get(tuple(sorted({**change, **other}.items())))
        if both is None or change.keys() == other.keys():
            continue
        vfms = list(means[[baseline, a, b, both]].dropna().index)
        if len(vfms) >= _MIN_MODELS:
            noises = [scatter[s].only(vfms) for s in (baseline, a, b, both)]
            found.append(_interaction((*change, *other), (a, b, both), noises))
    return found


def changes(
    settings: Iterable[str], known: dict[str, dict[str, object]], baseline: str
) -> dict[str, dict[str, str]]:
    """Return what every setting changes of the baseline, ``{factor: value}``.

    What is trained and evaluated on is one factor, ``data``. Settings of unknown factors are left
    out, and the baseline itself.
    """
    if baseline not in known:
        return {}
    base = _merged(known[baseline])
    found = {}
    for setting in settings:
        if setting in known and setting != baseline:
            values = _merged(known[setting])
            found[setting] = {f: v for f, v in values.items() if base.get(f) != v}
    return found


def _merged(values: dict[str, object]) -> dict[str, str]:
    train, evaluated = (str(values[name]) for name in _DATA)
    rest = {name: str(value) for name, value in values.items() if name not in _DATA}
    return {**rest, "data": train if train == evaluated else f"{train} to {evaluated}"}


def _interaction(factors, settings, noises: list[Noise]) -> Interaction:
    baseline, first, second, both = noises
    additive = _additive(first, second, baseline)
    error = both.means - additive.means
    sides = {"first": first, "second": second, "both": both, "additive": additive}
    bias, mse, seeds_mse = (float(error.mean()), None), (float((error**2).mean()), None), None
    if additive.known and both.known:
        rng = np.random.default_rng(0)
        drawn = both.draw(DRAWS, rng) - additive.draw(DRAWS, rng)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(drawn.mean(1), [tail, 1 - tail])
        bias = (bias[0], (float(low), float(high)))
        mse = (mse[0], without_noise(mse[0], (drawn**2).mean(1)))
        seeds_mse = sum(float(np.mean(n.variance / n.seeds)) for n in noises)
    a, b, ab = settings
    return Interaction(
        factors=factors,
        first=a,
        second=b,
        both=ab,
        scores=pd.DataFrame(
            {"predicted": additive.means, "measured": both.means, "error": error},
            index=pd.Index(both.vfms, name="vfm"),
        ),
        changes={name: float((n.means - baseline.means).mean()) for name, n in sides.items()},
        taus={name: _tau(n, baseline) for name, n in sides.items()},
        predicted_tau=_tau(additive, both),
        bias=bias,
        rmse=(mse[0] ** 0.5, mse[1] and (mse[1][0] ** 0.5, mse[1][1] ** 0.5)),
        seeds_rmse=None if seeds_mse is None else seeds_mse**0.5,
    )


def _additive(first: Noise, second: Noise, baseline: Noise) -> _Additive:
    parts = (first, second, baseline)
    seeds = np.ones(len(baseline.vfms))
    if all(part.known for part in parts):
        # As many seeds as give the predictions their variance.
        variance = sum(part.variance for part in parts)
        of_means = sum(part.variance / part.seeds for part in parts)
        seeds = np.where(of_means > 0, variance / np.where(of_means > 0, of_means, 1), 1.0)
    return _Additive(
        baseline.vfms,
        (first.means + second.means - baseline.means).round(9),
        seeds,
        np.array([]),
        sum(part.freedom for part in parts),
        parts,
    )


def _tau(x: Noise, y: Noise) -> Tau:
    scores = (pd.Series(side.means, index=side.vfms) for side in (x, y))
    return Tau(agreement(*scores), tau_interval(x, y))


def without_noise(measured: float, drawn: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval of what noise can only raise, such as a mean square.

    A bootstrap adds the seeds' noise to scores that already carry it. What the draws gain on
    average is what the measured value has gained, so the upper end is theirs without it; the lower
    end is the basic bootstrap's, as far below the measured value as the draws reach above.
    ``tools/benchmarks/interaction_coverage.py`` checks the coverage.

    Args:
        measured: What was measured, 0 or more.
        drawn: What the draws gave, shape (D,).
    """
    high = float(np.quantile(drawn, 0.5 + LEVEL / 2))
    gain = float(drawn.mean()) - measured
    return max(0.0, 2 * measured - high), max(0.0, high - gain)

"""From runs to scores, ranks and Kendall's tau."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from vfm_ss.protocol.runs import Run
from vfm_ss.protocol.settings import SETTINGS

_EXACT = 170  # models up to which the exact p-value takes no time


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree.

    Attributes:
        n: Number of models compared.
        tau: Kendall's tau-b; None where it is not defined (fewer than two models, or all tied).
        p_value: Two-sided p-value of the hypothesis that the rankings are unrelated.
        exact: Whether the p-value is exact; with ties or hundreds of models it is scipy's normal
            approximation.
        ties: Number of pairs of models with equal scores on either side.
    """

    n: int
    tau: float | None
    p_value: float | None
    exact: bool
    ties: int


def scores(runs: Iterable[Run]) -> pd.DataFrame:
    """Average the seeds.

    Args:
        runs: Runs without duplicates.

    Returns:
        One row per (setting, vfm) with ``mean``, ``std`` (of the sample; NaN for one seed),
        ``seeds`` (their number) and ``runs``. Settings are in the paper's order, then by name.
    """
    table = pd.DataFrame(
        [(run.setting, run.vfm, run.miou, run) for run in runs],
        columns=["setting", "vfm", "miou", "runs"],
    )
    place = {name: i for i, name in enumerate(SETTINGS)}
    table["place"] = table["setting"].map(place).fillna(len(place))
    groups = table.groupby(["place", "setting", "vfm"])
    cells = groups["miou"].agg(mean=fmean, std="std", seeds="size")
    # Equal seeds in another order or another sum must tie.
    cells["mean"] = cells["mean"].round(9)
    cells["runs"] = groups["runs"].agg(list)
    return cells.droplevel("place")


def ranks(means: pd.Series) -> pd.Series:
    """Rank scores: 1 is the highest, equal scores share the better rank."""
    return means.rank(ascending=False, method="min").astype(int)


def agreement(x: pd.Series, y: pd.Series) -> Agreement:
    """Compute Kendall's tau between two sets of scores.

    Without ties this is the paper's formula (1): concordant minus discordant pairs over all pairs
    (arXiv 2404.12172). With ties it is tau-b.

    Args:
        x: Scores by VFM.
        y: Scores by VFM. Only the VFMs in both are compared.
    """
    common = x.index.intersection(y.index)
    x, y = x[common], y[common]
    n = len(common)
    i, j = np.triu_indices(n, 1)
    a, b = x.to_numpy(), y.to_numpy()
    ties = int(((a[i] == a[j]) | (b[i] == b[j])).sum())
    if n < 2 or x.nunique() < 2 or y.nunique() < 2:
        return Agreement(n, None, None, exact=False, ties=ties)
    exact = not ties and n <= _EXACT
    result = kendalltau(x, y, variant="b", method="exact" if exact else "asymptotic")
    tau = round(float(result.statistic), 12)  # scipy may return 0.9999999999999999
    return Agreement(n, tau, float(result.pvalue), exact, ties)


def tau_b(x: np.ndarray, y: np.ndarray, block: int = 2_000_000) -> np.ndarray:
    """Compute Kendall's tau-b of many tables at once, without p-values.

    Args:
        x: Scores, one table of N models per row, shape (D, N).
        y: Scores to compare with, shape (D, N) or (1, N).
        block: Number of pairs held in memory at a time.

    Returns:
        tau of every row, shape (D,); NaN where all models of a row are tied.
    """
    y = np.broadcast_to(y, x.shape)
    i, j = np.triu_indices(x.shape[1], 1)
    rows = max(1, block // len(i))
    taus = []
    for k in range(0, len(x), rows):
        a = np.sign(x[k : k + rows, i] - x[k : k + rows, j])
        b = np.sign(y[k : k + rows, i] - y[k : k + rows, j])
        with np.errstate(invalid="ignore"):
            taus.append((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))
    return np.concatenate(taus)


def rank_shift(means: pd.Series, baseline: pd.Series) -> pd.Series:
    """Return how many ranks each VFM gains over the baseline, among the VFMs in both."""
    common = means.index.intersection(baseline.index)
    return ranks(baseline[common]) - ranks(means[common])


def find_baseline(cells: pd.DataFrame, wanted: str) -> str:
    """Return the setting to compare with.

    That is ``wanted``. Only where the paper's default was asked for and not run (a project's own
    dataset), it is what comes closest: linear decoder end to end before others, then the whole
    training set, then ViT-B, then 16x16 patches, then the setting with the most models.

    Raises:
        ValueError: If another setting was asked for and not run.
    """
    found = list(cells.index.unique("setting"))
    if wanted in found:
        return wanted
    if wanted != "default":
        raise ValueError(f"no finished run under the baseline {wanted!r}, only {', '.join(found)}")

    def distance(setting: str) -> tuple:
        record = cells.loc[setting, "runs"].iloc[0][0].record
        models = len(cells.loc[setting])
        if record is None:
            return (True, True, True, True, -models, setting)
        return (
            record.decoder != "linear",
            record.fraction != 1,
            record.size != "b",
            record.patch != 16,
            -models,
            setting,
        )

    return min(found, key=distance)

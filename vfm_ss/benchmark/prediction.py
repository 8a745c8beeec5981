"""How should I benchmark? Which cheap settings predict the ranking under a dear one."""

from itertools import combinations

import pandas as pd

from vfm_ss.benchmark.ranking import agreement

_MIN_MODELS = 3
_ALL_SUBSETS = 8  # with more candidates than this, only subsets of up to _FEW are tried
_FEW = 3


def predict_target(means: pd.DataFrame, cost: pd.Series, target: str) -> pd.DataFrame:
    """Try every subset of the other settings as a predictor of the ranking under ``target``.

    A subset predicts by the mean of its settings' standardised scores. All subsets are judged on
    the same models: those with a score under the target and under every candidate. A candidate
    that lacks more than a third of the target's models is left out.

    Args:
        means: Mean scores, VFMs in rows and settings in columns, NaN for gaps.
        cost: Training time of every setting relative to the baseline, None where not known.
        target: The setting whose ranking is to be predicted.

    Returns:
        One row per subset, by cost: ``settings`` (tuple), ``cost`` (sum; NaN if not known),
        ``tau``, ``n`` and ``front`` (whether no subset is cheaper or as cheap and agrees more:
        the Pareto front). Empty where fewer than three models are common.
    """
    models = means[means[target].notna()]
    candidates = [name for name in means if name != target and models[name].notna().mean() >= 2 / 3]
    common = models[candidates].dropna()
    columns = ["settings", "cost", "tau", "n", "front"]
    if len(common) < _MIN_MODELS:
        return pd.DataFrame(columns=columns)
    spread = common.std(ddof=0)
    standard = (common - common.mean()) / spread.where(spread > 0, 1)
    largest = len(candidates) if len(candidates) <= _ALL_SUBSETS else _FEW
    rows = []
    for size in range(1, largest + 1):
        for subset in combinations(candidates, size):
            predicted = standard[list(subset)].mean(axis=1).round(9)
            tau = agreement(predicted, means.loc[common.index, target]).tau
            price = [cost.get(name) for name in subset]
            total = float("nan") if any(pd.isna(p) for p in price) else float(sum(price))
            rows.append((subset, total, tau, len(common)))
    table = pd.DataFrame(rows, columns=columns[:-1]).astype({"tau": float})
    table = table.sort_values(["cost", "tau"], ascending=[True, False], kind="stable")
    best_before = table["tau"].where(table["cost"].notna()).cummax().shift(fill_value=-2.0)
    table["front"] = table["cost"].notna() & (table["tau"] > best_before)
    return table.reset_index(drop=True)

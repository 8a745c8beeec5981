"""How should I benchmark? Which cheap settings predict the ranking under an expensive one."""

from itertools import combinations

import numpy as np
import pandas as pd

from vfm_ss.ranking.agreement import tau_b

_MIN_MODELS = 3
_ALL_SUBSETS = 8  # with more candidates than this, only subsets of up to _FEW are tried
_FEW = 3


def predict_target(
    means: pd.DataFrame, cost: pd.Series, target: str, trainings: dict[str, str] | None = None
) -> pd.DataFrame:
    """Try every subset of the other settings as a predictor of the ranking under ``target``.

    A subset predicts by the mean of its settings' standardised scores. All subsets are judged on
    the same models: those with a score under the target and under every candidate. A candidate
    that lacks more than a third of the target's models is left out.

    Args:
        means: Mean scores, VFMs in rows and settings in columns, NaN for gaps.
        cost: Training time of every setting relative to the baseline, None where not known.
        target: The setting whose ranking is to be predicted.
        trainings: For every setting the first one of the same trainings, which are paid once; see
            `factors.shared_trainings`. Without it each setting was trained for itself.

    Returns:
        One row per subset, by cost: ``settings`` (tuple), ``cost`` (sum; NaN if not known),
        ``tau``, ``n`` and ``front`` (whether no subset is cheaper or as cheap and agrees more:
        the Pareto front). Empty where fewer than three models are common.
    """
    models = means[means[target].notna()]
    candidates = [name for name in means if name != target and models[name].notna().mean() >= 2 / 3]
    common = models[candidates].dropna()
    if len(common) < _MIN_MODELS or not candidates:
        return pd.DataFrame(columns=["settings", "cost", "tau", "n", "front"])
    spread = common.std(ddof=0)
    standard = (common - common.mean()) / spread.where(spread > 0, 1)
    largest = len(candidates) if len(candidates) <= _ALL_SUBSETS else _FEW
    subsets = [s for size in range(1, largest + 1) for s in combinations(candidates, size)]
    scores = {name: standard[name].to_numpy() for name in candidates}
    predicted = np.array([np.mean([scores[s] for s in subset], 0) for subset in subsets]).round(9)
    table = pd.DataFrame(
        {
            "settings": subsets,
            "cost": [_price(cost, subset, trainings or {}) for subset in subsets],
            "tau": tau_b(predicted, means.loc[common.index, [target]].to_numpy().T).round(12),
            "n": len(common),
        }
    )
    table = table.sort_values(["cost", "tau"], ascending=[True, False], kind="stable")
    best_before = table["tau"].where(table["cost"].notna()).cummax().shift(fill_value=-2.0)
    table["front"] = table["cost"].notna() & (table["tau"] > best_before)
    return table.reset_index(drop=True)


def _price(cost: pd.Series, subset: tuple[str, ...], trainings: dict[str, str]) -> float:
    prices: dict[str, float] = {}
    for setting in subset:
        price = cost.get(setting)
        price = float("nan") if price is None else price
        training = trainings.get(setting, setting)
        prices[training] = max(price, prices.get(training, price))
    return float(sum(prices.values()))

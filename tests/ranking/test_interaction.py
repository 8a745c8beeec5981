"""Do settings interact? Every number against one computed by hand or by scipy from the scores."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import kendalltau

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.interaction import changes
from vfm_ss.ranking.variance import TERMS

D, A, B, AB = "b16_linear_x", "b16_probe_x", "b16_linear_x_f4", "b16_probe_x_f4"
# Mean over the two seeds, which lie 1 above and below it.
SCORES = {
    "v": {D: 60, A: 50, B: 48, AB: 41},  # predicted 38
    "w": {D: 55, A: 52, B: 47, AB: 45},  # predicted 44
    "x": {D: 50, A: 48, B: 44, AB: 40},  # predicted 42
    "y": {D: 45, A: 30, B: 40, AB: 28},  # predicted 25
}


def runs(scores, seeds=(-1, 1)):
    return [
        Run(setting, vfm, k, mean + off, f"t line {vfm} {setting} {k}")
        for vfm, row in scores.items()
        for setting, mean in row.items()
        for k, off in enumerate(seeds)
    ]


def simulated(rng, sigma=0.5, interaction=0.0, fractions=("", "_f4", "_f16"), seeds=3, models=5):
    """A grid of settings whose changes add up, but for ``interaction`` by model."""
    found = {}
    for v in range(models):
        for decoder, fraction in itertools.product(("linear", "probe"), fractions):
            mean = 50 - 3 * v - 5 * (decoder == "probe") * (1 + 0.2 * v)
            mean -= {"": 0, "_f4": 2, "_f16": 6}[fraction]
            mean += interaction * (v - (models - 1) / 2) * (decoder == "probe") * bool(fraction)
            found[f"m{v}", f"b16_{decoder}_x{fraction}"] = mean
    return [
        Run(setting, vfm, k, mean + sigma * rng.normal(), f"{vfm}{setting}{k}")
        for (vfm, setting), mean in found.items()
        for k in range(seeds)
    ]


def test_an_additive_model_predicts_what_two_changes_do_together():
    (found,) = analyse(runs(SCORES)).interactions
    assert {found.first, found.second} == {A, B}
    assert found.both == AB
    assert set(found.factors) == {"frozen encoder", "training fraction"}
    scores = found.scores
    assert scores["predicted"].to_dict() == {"v": 38, "w": 44, "x": 42, "y": 25}
    assert scores["error"].to_dict() == {"v": 3, "w": 1, "x": -2, "y": 3}
    assert found.bias[0] == 5 / 4
    assert found.rmse[0] == pytest.approx((23 / 4) ** 0.5)
    first, second = ("first", "second") if found.first == A else ("second", "first")
    assert found.changes == {first: -7.5, second: -7.75, "both": -14.0, "additive": -15.25}

    def tau(*sides):
        return kendalltau(*([row[v] for v in SCORES] for row in sides)).statistic

    by = {s: {v: row[s] for v, row in SCORES.items()} for s in (D, A, B, AB)}
    by["sum"] = scores["predicted"].to_dict()
    taus = {name: t.agreement.tau for name, t in found.taus.items()}
    assert taus == pytest.approx(
        {first: tau(by[A], by[D]), second: tau(by[B], by[D]),
         "both": tau(by[AB], by[D]), "additive": tau(by["sum"], by[D])}
    )  # fmt: skip
    assert len(set(taus.values())) > 2, "a mix-up would be seen"
    assert found.predicted_tau.agreement.tau == pytest.approx(tau(by["sum"], by[AB]))
    # One seed has a variance of 2, a mean of two has 1, and four means make an error.
    assert found.seeds_rmse == pytest.approx(2.0)


def test_intervals_hold_what_is_true():
    """The mean error 0, and no interaction, where changes add up."""
    inside = np.zeros(3)
    for k in range(20):
        a = analyse(simulated(np.random.default_rng(k), fractions=("", "_f4")))
        (found,) = a.interactions
        (low, high), rmse = found.bias[1], found.rmse[1]
        (variance,) = a.variances
        share = variance.shares.set_index("term").loc[[("vfm", "first", "second")]].iloc[0]
        inside += [low <= 0 <= high, rmse[0] == 0, share.low == 0]
    assert (inside >= 17).all(), inside


def test_an_interaction_is_found():
    a = analyse(simulated(np.random.default_rng(0), interaction=3.0))
    found = {i.both: i for i in a.interactions}["b16_probe_x_f16"]
    truth = [3.0 * (v - 2) for v in range(5)]
    assert found.scores["error"].to_list() == pytest.approx(truth, abs=2.0)
    low, high = found.rmse[1]
    assert low < np.sqrt(np.mean(np.square(truth))) < high
    assert low > found.seeds_rmse
    (variance,) = a.variances
    row = variance.shares.set_index("term").loc[[("vfm", "first", "second")]].iloc[0]
    assert row.p_value < 1e-6
    assert row.low > 0


def by_hand(table):
    """Sums of squares of a balanced design with three factors: means over means, no library."""
    names = ["vfm", "first", "second"]
    effects = {(): table["miou"].mean()}
    squares = {}
    for term in TERMS:
        names = list(term)
        means = table.groupby(names)["miou"].mean()
        lower = [t for t in effects if set(t) < set(term)]
        total = 0.0
        kept = {}
        for key, mean in means.items():
            at = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
            effect = mean - sum(
                effects[t] if t == () else effects[t][tuple(at[n] for n in t)] for t in lower
            )
            kept[tuple(at[n] for n in term)] = effect
            total += effect**2 * len(table) / len(means)
        effects[term], squares[term] = kept, total
    squares[()] = ((table["miou"] - table["miou"].mean()) ** 2).sum() - sum(squares.values())
    return squares


def test_shares_of_the_variance_are_those_by_hand():
    drawn = simulated(np.random.default_rng(3), sigma=1.0, interaction=0.5)
    (found,) = analyse(drawn).variances
    decoder = {r: "probe" in r.setting for r in drawn}
    fraction = {r: r.setting.partition("x")[2] for r in drawn}
    sides = (decoder, fraction) if found.factors[0] == "frozen encoder" else (fraction, decoder)
    table = pd.DataFrame(
        [(r.vfm, sides[0][r], sides[1][r], r.miou) for r in drawn],
        columns=["vfm", "first", "second", "miou"],
    )
    squares = by_hand(table)
    shares = found.shares.set_index("term")["share"].to_dict()
    total = sum(squares.values())
    assert shares == pytest.approx({term: value / total for term, value in squares.items()})
    assert sum(shares.values()) == pytest.approx(1)
    assert found.balanced
    assert (len(found.settings), len(found.vfms)) == (6, 5)
    # The F test of the interaction that changes rankings.
    freedom = 4 * 1 * 2, 5 * 6 * (3 - 1)
    f = (squares["vfm", "first", "second"] / freedom[0]) / (squares[()] / freedom[1])
    p = found.shares.set_index("term")["p_value"].to_dict()
    assert p["vfm", "first", "second"] == pytest.approx(f_distribution.sf(f, *freedom))
    assert p[()] is None


def least_squares(table, terms):
    x = pd.concat(
        [pd.Series(1.0, table.index), *(
            pd.get_dummies(table[list(t)].astype(str).agg("|".join, axis=1), dtype=float)
            for t in terms
        )], axis=1,
    ).to_numpy()  # fmt: skip
    fit = np.linalg.lstsq(x, table["miou"].to_numpy(), rcond=None)[0]
    return ((table["miou"].to_numpy() - x @ fit) ** 2).sum()


def test_with_seeds_missing_each_term_is_what_it_adds():
    drawn = simulated(np.random.default_rng(4), sigma=1.0)
    drawn = [r for k, r in enumerate(drawn) if k % 7]
    a = analyse(drawn)
    (found,) = a.variances
    assert not found.balanced
    first = "probe" if found.factors[0] == "frozen encoder" else "f"
    table = pd.DataFrame(
        [(r.vfm, *((("probe" in r.setting), r.setting.partition("x")[2])[:: 1 if first == "probe"
         else -1]), r.miou) for r in drawn],
        columns=["vfm", "first", "second", "miou"],
    )  # fmt: skip
    total = ((table["miou"] - table["miou"].mean()) ** 2).sum()
    for term in TERMS:
        others = [t for t in TERMS if not set(term) <= set(t)]
        added = least_squares(table, others) - least_squares(table, [*others, term])
        share = found.shares.set_index("term").loc[[term], "share"].iloc[0]
        assert share == pytest.approx(added / total)


def test_one_seed_gives_no_interval_and_no_p_value():
    a = analyse(runs(SCORES, seeds=(0,)))
    (found,), (variance,) = a.interactions, a.variances
    assert (found.bias, found.rmse[1], found.seeds_rmse) == ((1.25, None), None, None)
    assert found.taus["both"].interval is None
    assert found.predicted_tau.interval is None
    assert variance.shares[["low", "high", "p_value"]].isna().all(axis=None)
    assert variance.shares["share"].sum() == pytest.approx(1)
    assert variance.shares["share"].iloc[-1] == 0


@pytest.mark.parametrize("gone", [D, A, B, AB])
def test_without_one_of_the_four_there_is_nothing_to_say(gone):
    scores = {vfm: {s: m for s, m in row.items() if s != gone} for vfm, row in SCORES.items()}
    a = analyse(runs(scores), next(s for s in (D, A) if s != gone))
    assert a.interactions == a.variances == []


def test_models_missing_under_one_of_the_four_are_left_out():
    scores = {**SCORES, "z": {D: 99, A: 1, B: 99}}
    (found,) = analyse(runs(scores)).interactions
    assert list(found.scores.index) == ["v", "w", "x", "y"]
    few = {vfm: SCORES[vfm] for vfm in ("v", "w")}
    assert analyse(runs(few)).interactions == []


def test_a_value_without_its_combinations_leaves_the_grid():
    scores = {vfm: {**row, "b16_linear_x_f16": 30} for vfm, row in SCORES.items()}
    (variance,) = analyse(runs(scores)).variances
    assert set(variance.settings) == {D, A, B, AB}


def test_what_settings_change_of_the_baseline(make_record):
    def values(**changed):
        return {"size": "b", "decoder": "linear", "training data": "x", "evaluation data": "x",
                "configuration": "", **changed}  # fmt: skip

    known = {
        "d": values(),
        "shift": values(**{"training data": "y"}),
        "other": values(**{"training data": "z", "evaluation data": "z"}),
        "lr": values(configuration="lr=0.1"),
        "two": values(size="l", decoder="probe"),
    }
    assert changes([*known, "unknown"], known, "d") == {
        "shift": {"data": "y to x"},
        "other": {"data": "z"},
        "lr": {"configuration": "lr=0.1"},
        "two": {"size": "l", "decoder": "probe"},
    }
    assert changes(known, known, "unknown") == {}

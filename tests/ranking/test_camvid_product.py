"""A real product of factors on CamVid, ranked, against numbers computed from its 36 scores alone.

`tools/benchmarks/camvid_product.py` has trained it; docs/benchmarks.md reads it.
"""

import csv
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from vfm_ss.protocol.score_tables import read_results
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.variance import TERMS

TABLE = Path(__file__).with_name("camvid_product.csv")
DECODERS, PARTS = ("linear", "probe"), ("", "_f4", "_f16")
BASE = "t16_linear_camvid_20steps"


def setting(decoder, part):
    return f"t16_{decoder}_camvid{part}_20steps"


@pytest.fixture(scope="module")
def scores():
    """``{(setting, vfm): [score of each seed]}``."""
    found = {}
    with open(TABLE, newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["setting"], row["vfm"]), []).append(float(row["miou"]))
    return found


@pytest.fixture(scope="module")
def analysis():
    runs, skipped = read_results(TABLE)
    assert not skipped
    return analyse(runs)


def vfms(scores):
    return sorted({vfm for _, vfm in scores})


def test_the_whole_product_is_there(scores):
    assert len(scores) == len(DECODERS) * len(PARTS) * 3
    assert all(len(seeds) == 2 for seeds in scores.values())
    assert {s for s, _ in scores} == {setting(d, p) for d in DECODERS for p in PARTS}


def test_means_spreads_and_ranks(scores, analysis):
    assert analysis.baseline == BASE
    for name in {s for s, _ in scores}:
        table = analysis.models[name].set_index("vfm")
        means = {vfm: fmean(scores[name, vfm]) for vfm in vfms(scores)}
        for vfm in means:
            assert table.loc[vfm, "miou_mean"] == pytest.approx(means[vfm])
            assert table.loc[vfm, "miou_std"] == pytest.approx(stdev(scores[name, vfm]))
            assert table.loc[vfm, "rank"] == 1 + sum(m > means[vfm] for m in means.values())


def tau(x, y):
    pairs = list(combinations(range(len(x)), 2))
    return fmean(np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs)


def means_of(scores, name):
    return [fmean(scores[name, vfm]) for vfm in vfms(scores)]


def test_agreement_with_the_default(scores, analysis):
    found = {c.setting: c.agreement.tau for c in analysis.comparisons if c.baseline == BASE}
    assert len(found) == 5
    for name, value in found.items():
        assert value == pytest.approx(tau(means_of(scores, name), means_of(scores, BASE)))


@pytest.mark.parametrize("part", PARTS[1:])
def test_interactions(scores, analysis, part):
    both = setting("probe", part)
    (found,) = [i for i in analysis.interactions if i.both == both]
    assert {found.first, found.second} == {setting("probe", ""), setting("linear", part)}
    predicted = [
        a + b - d
        for a, b, d in zip(
            means_of(scores, found.first),
            means_of(scores, found.second),
            means_of(scores, BASE),
            strict=True,
        )
    ]
    measured = means_of(scores, both)
    errors = np.subtract(measured, predicted)
    assert found.scores["predicted"][vfms(scores)].tolist() == pytest.approx(predicted)
    assert found.bias[0] == pytest.approx(errors.mean())
    assert found.rmse[0] == pytest.approx((errors**2).mean() ** 0.5)
    assert found.predicted_tau.agreement.tau == pytest.approx(tau(predicted, measured))
    for name, side in (("first", found.first), ("second", found.second), ("both", both)):
        assert found.taus[name].agreement.tau == pytest.approx(
            tau(means_of(scores, side), means_of(scores, BASE))
        )


def test_shares_of_the_variance(scores, analysis):
    """Sums of squares of a balanced design, from its marginal means."""
    (found,) = analysis.variances
    y = np.array(
        [[[scores[setting(d, p), v] for p in PARTS] for d in DECODERS] for v in vfms(scores)]
    )  # (VFMs, decoders, fractions, seeds)
    axes = dict(zip(("vfm", "first", "second"), (0, 1, 2), strict=True))
    if found.factors[0] == "training fraction":
        axes["first"], axes["second"] = 2, 1
    squares = {(): ((y - y.mean(3, keepdims=True)) ** 2).sum()}

    def effect(kept):
        mean = y.mean(tuple(i for i in range(4) if i not in kept), keepdims=True)
        smaller = (part for n in range(len(kept)) for part in combinations(sorted(kept), n))
        return mean - sum((effect(set(part)) for part in smaller), np.zeros((1, 1, 1, 1)))

    for term in TERMS:
        values = np.broadcast_to(effect({axes[name] for name in term}), y.shape)
        squares[term] = (values**2).sum()
    total = ((y - y.mean()) ** 2).sum()
    assert sum(squares.values()) == pytest.approx(total)
    for row in found.shares.itertuples():
        assert row.share == pytest.approx(squares[row.term] / total), row.term

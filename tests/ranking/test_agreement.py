import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from vfm_ss.protocol.records import Record
from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.agreement import agreement, find_baseline, rank_shift, ranks, scores, tau_b


def series(values):
    return pd.Series(values, index=[f"m{i}" for i in range(len(values))], dtype=float)


def paper_tau(x, y):
    """Formula (1) of the paper, by counting pairs."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    concordant = sum((x[i] - x[j]) * (y[i] - y[j]) > 0 for i, j in pairs)
    return (concordant - (len(pairs) - concordant)) / len(pairs)


def exact_p(x, y):
    """Share of all orders of y that agree or disagree at least as much."""
    tau = abs(paper_tau(x, y))
    perms = list(itertools.permutations(y))
    return sum(abs(paper_tau(x, p)) >= tau - 1e-12 for p in perms) / len(perms)


@given(st.permutations(range(10)), st.permutations(range(10)))
def test_without_ties_tau_is_the_papers_formula(x, y):
    result = agreement(series(x), series(y))
    assert result.tau == pytest.approx(paper_tau(x, y), abs=1e-12)
    swaps = (1 - result.tau) * 45 / 2
    assert swaps == pytest.approx(round(swaps), abs=1e-9)  # steps of 2/45
    assert (result.n, result.ties, result.exact) == (10, 0, True)


@given(st.permutations(range(6)))
@settings(max_examples=25, deadline=None)
def test_the_p_value_is_exact(y):
    x = list(range(6))
    assert agreement(series(x), series(y)).p_value == pytest.approx(exact_p(x, y), abs=1e-12)


@given(
    st.integers(2, 15).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 4), min_size=n, max_size=n),
            st.lists(st.integers(0, 4), min_size=n, max_size=n),
        )
    )
)
def test_with_ties_tau_and_p_are_scipys(tables):
    x, y = tables
    result = agreement(series(x), series(y))
    pairs = list(itertools.combinations(range(len(x)), 2))
    assert result.ties == sum(x[i] == x[j] or y[i] == y[j] for i, j in pairs)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert result.tau is None
        assert result.p_value is None
        return
    expected = kendalltau(x, y)
    assert result.tau == pytest.approx(expected.statistic, abs=1e-12)
    assert result.p_value == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 10, 50, 500])
def test_identical_is_one_and_reversed_is_minus_one(n):
    x = series(np.arange(n))
    assert agreement(x, 3 * x + 1).tau == 1
    assert agreement(x, -x).tau == -1


def test_small_tables():
    assert agreement(series([1.0]), series([2.0])).tau is None
    assert agreement(series([]), series([])).n == 0
    two = agreement(series([1, 2]), series([5, 9]))
    assert (two.n, two.tau, two.p_value) == (2, 1.0, 1.0)
    assert agreement(series([1, 1]), series([5, 9])).tau is None


def test_only_common_models_count():
    x = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "only_x": 0.0})
    y = pd.Series({"c": 1.0, "only_y": 9.0, "b": 2.0, "a": 3.0})
    result = agreement(x, y)
    assert (result.n, result.tau) == (3, -1.0)
    assert agreement(x, pd.Series({"z": 1.0})).n == 0
    assert rank_shift(x, y).to_dict() == {"a": -2, "b": 0, "c": 2}


def test_ranks_share_the_better_place():
    assert ranks(series([5, 7, 7, 1])).tolist() == [3, 1, 1, 4]


def test_scores_average_seeds_and_keep_the_papers_order():
    runs = [
        Run("zebra", "a", 0, 1.0, "z"),
        Run("probe", "a", 0, 10.0, "p"),
        Run("default", "b", None, 30.0, "d3"),
        Run("default", "a", 0, 50.2, "d0"),
        Run("default", "a", 1, 50.6, "d1"),
    ]
    cells = scores(runs)
    assert list(cells.index.unique("setting")) == ["default", "probe", "zebra"]
    cell = cells.loc[("default", "a")]
    assert cell["mean"] == pytest.approx(50.4)
    assert cell["std"] == pytest.approx(np.std([50.2, 50.6], ddof=1))
    assert cell["seeds"] == 2
    assert [run.path for run in cell["runs"]] == ["d0", "d1"]
    assert np.isnan(cells.loc[("default", "b"), "std"])


@given(st.permutations([50.1, 50.2, 50.3]))
def test_equal_seeds_tie_whatever_their_order(values):
    runs = [Run("default", "a", i, v, "") for i, v in enumerate(values)]
    runs += [Run("default", "b", i, 50.2, "") for i in range(3)]
    assert scores(runs)["mean"].nunique() == 1


def own(setting_decoder, vfm, size="b", patch=16, data=None):
    record = Record(
        name="x",
        vfm=vfm,
        decoder=setting_decoder,
        train_dataset="demo",
        eval_dataset="demo",
        status="finished",
        size=size,
        patch=patch,
        data=data,
    )
    return Run(record.setting, vfm, 0, 50.0, "", record)


def test_baseline_is_the_one_asked_for_or_the_closest_to_the_default():
    cells = scores([own("probe", "a"), own("probe", "b"), own("linear", "a")])
    assert find_baseline(cells, "default") == "b16_linear_demo"
    assert find_baseline(cells, "b16_probe_demo") == "b16_probe_demo"
    with pytest.raises(ValueError, match="no finished run under the baseline 'large', only b16"):
        find_baseline(cells, "large")
    cells = scores([own("linear", "a", patch=8), own("linear", "a", size="l"), own("linear", "a")])
    assert find_baseline(cells, "default") == "b16_linear_demo"
    part = {"train_samples": 5, "fraction": 0.25, "subset_seed": 0}
    cells = scores([own("linear", "a", data=part), own("linear", "a", size="l")])
    assert find_baseline(cells, "default") == "l16_linear_demo"
    table = scores([Run("mine", "a", 0, 1.0, ""), Run("yours", "a", 0, 1.0, "")])
    assert find_baseline(table, "default") == "mine"
    assert find_baseline(scores([Run("default", "a", 0, 1.0, "")]), "default") == "default"


def test_vectorised_tau_equals_scipy_with_and_without_ties():
    rng = np.random.default_rng(1)
    for high in (3, 1000):
        x, y = rng.integers(0, high, (40, 12)), rng.integers(0, high, (40, 12))
        expected = [kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
        assert tau_b(x, y, block=500) == pytest.approx(expected, abs=1e-12)

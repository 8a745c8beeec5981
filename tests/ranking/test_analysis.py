import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from vfm_ss.protocol.runs import Run, collect
from vfm_ss.ranking.agreement import scores
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.cost import costs
from vfm_ss.ranking.prediction import predict_target


def runs(table):
    """Runs from ``{setting: {vfm: [score of every seed]}}``."""
    return [
        Run(setting, vfm, seed, score, f"{setting}/{vfm}/{seed}")
        for setting, row in table.items()
        for vfm, values in row.items()
        for seed, score in enumerate(values)
    ]


def test_models_are_ranked_beside_the_baseline():
    a = analyse(
        runs(
            {
                "default": {"a": [50, 52], "b": [40, 41], "c": [30, 31]},
                "probe": {"a": [20, 21], "b": [25, 26], "c": [10, 12]},
            }
        )
    )
    table = a.models["probe"]
    assert table["vfm"].tolist() == ["b", "a", "c"]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["baseline_rank"].tolist() == [2, 1, 3]
    assert table["shift"].tolist() == [1, -1, 0]
    assert table["miou_mean"].tolist() == [25.5, 20.5, 11.0]
    assert table["miou_std"].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 2**0.5])
    (comparison,) = a.comparisons
    assert comparison.agreement.tau == pytest.approx(1 / 3)
    assert comparison.paper_tau == 0.38
    assert list(a.means.index) == ["a", "b", "c"]
    assert a.notes == []


def test_missing_models_are_gaps_and_said():
    a = analyse(
        runs(
            {
                "default": {"a": [5], "b": [4], "c": [3]},
                "probe": {"a": [1], "c": [2], "d": [3]},
            }
        )
    )
    table = a.models["probe"].set_index("vfm")
    assert list(table.index) == ["d", "c", "a", "b"]
    assert table.loc["b"].to_dict() == {
        "miou_mean": None,
        "miou_std": None,
        "seeds": 0,
        "rank": None,
        "baseline_rank": 2,
        "shift": None,
    }
    assert table.loc["d", "baseline_rank"] is None
    assert table.loc["c", ["rank", "baseline_rank", "shift"]].tolist() == [2, 3, 1]
    (comparison,) = a.comparisons
    assert (comparison.agreement.n, comparison.agreement.tau) == (2, -1)
    assert (comparison.missing, comparison.extra) == (("b",), ("d",))
    assert comparison.interval is None
    assert a.notes == ["One seed only, so no standard deviation."]


@pytest.mark.parametrize("common", [0, 1])
def test_no_or_one_common_model_gives_no_tau(common):
    names = ["a", "x"] if common else ["x", "y"]
    a = analyse(runs({"default": {"a": [5], "b": [4]}, "probe": {v: [1] for v in names}}))
    assert a.comparisons[0].agreement.n == common
    assert a.comparisons[0].agreement.tau is None


def test_domain_shift_is_also_compared_with_cityscapes():
    settings = ("default", "cityscapes", "gta2cityscapes")
    a = analyse(runs({s: {"a": [1], "b": [2]} for s in settings}))
    assert [(c.setting, c.baseline, c.paper_tau) for c in a.comparisons] == [
        ("cityscapes", "default", 0.56),
        ("gta2cityscapes", "default", 0.64),
        ("gta2cityscapes", "cityscapes", 0.73),
    ]


def test_the_matrix_is_scipys_tau_between_all_settings(tmp_path, write_grid):
    a = analyse(collect([write_grid(tmp_path, seeds=2)])[0])
    for s, t in itertools.product(a.settings, a.settings):
        expected = kendalltau(a.means[s], a.means[t]).statistic
        assert a.taus.loc[s, t] == pytest.approx(expected, abs=1e-12)
    assert a.costliest == "gta2cityscapes"


def test_one_setting_alone_is_ranked():
    a = analyse(runs({"default": {"a": [1], "b": [2]}}))
    assert a.comparisons == []
    assert a.models["default"]["vfm"].tolist() == ["b", "a"]
    assert a.models["default"]["shift"].tolist() == [0, 0]


def test_nothing_to_rank_is_an_error():
    with pytest.raises(ValueError, match="no finished run to rank"):
        analyse([])


def test_outside_scores_are_compared_over_common_models():
    a = analyse(
        runs({"default": {"a": [1], "b": [2], "c": [3]}}),
        outside={"top1": {"a": 90, "c": 80, "z": 1}, "none": {"z": 1.0}},
    )
    assert (a.outside["top1"]["default"].n, a.outside["top1"]["default"].tau) == (2, -1)
    assert a.outside["none"]["default"].tau is None


def test_runs_on_devices_of_other_precision_are_noted(make_record):
    precisions = ("fp16", "fp32", None)
    records = [make_record("mae", seed=k, precision=p) for k, p in enumerate(precisions)]
    a = analyse([Run(r.setting, r.vfm, r.seed, r.miou, "", r) for r in records])
    (note,) = a.notes
    assert "runs differ in precision (fp16, fp32)" in note


def test_classes_that_a_mean_leaves_out_are_counted_and_named(make_record):
    whole = {"wall": 10.0, "sky": 20.0, "car": 30.0}
    records = [
        make_record("mae", seed=0, iou=whole),
        make_record("mae", seed=1, iou=whole | {"car": None}),
        make_record("sam", seed=0, iou=whole | {"car": None}),
        make_record("sam", seed=1, iou=None),
    ]
    notes = analyse([Run(r.setting, r.vfm, r.seed, r.miou, "", r) for r in records]).notes
    assert notes == [
        "default: NOT COMPARABLE: the mean is over 2, 3 classes in different runs.",
        "default: 2 of 3 classes in the mean, for mae, sam; in neither labels nor predictions: "
        "car.",
    ]
    alone = analyse([Run(r.setting, r.vfm, r.seed, r.miou, "", r) for r in records[1:3]]).notes
    assert "default: 2 of 3 classes in the mean, for mae, sam" in alone[-1]
    assert not any("NOT COMPARABLE" in note for note in alone)


def timed(make_record, setting, vfm, seed, seconds, device="gpu", params=100):
    record = make_record(
        vfm,
        setting,
        seed,
        train_seconds=seconds,
        step_seconds=None if seconds is None else seconds / 10,
        trainable_params=params,
        device=device,
        world_size=1,
    )
    return Run(setting, vfm, seed, 50.0, "", record)


def test_costs_compare_every_model_with_itself(make_record):
    rows = [
        timed(make_record, "default", "mae", 0, 100.0),
        timed(make_record, "default", "mae", 1, 120.0),
        timed(make_record, "default", "sam", 0, 200.0),
        timed(make_record, "probe", "mae", 0, 55.0, params=10),
        timed(make_record, "probe", "sam", 0, 140.0, params=10),
        timed(make_record, "probe", "beit3", 0, 1.0, params=10),
    ]
    cost = costs(scores(rows), "default")
    assert cost.loc["default", "time_ratio"] == 1
    assert cost.loc["probe", "time_ratio"] == pytest.approx((55 / 110 + 140 / 200) / 2)
    assert cost.loc["probe", "step_ratio"] == pytest.approx(cost.loc["probe", "time_ratio"])
    assert cost.loc["probe", "train_seconds"] == 55
    assert cost.loc["probe", ["params", "params_change", "timed"]].tolist() == [10, -90, 2]


def test_times_of_different_devices_are_not_compared(make_record):
    rows = [
        timed(make_record, "default", "mae", 0, 100.0),
        timed(make_record, "default", "sam", 0, 100.0),
        timed(make_record, "probe", "mae", 0, 10.0, device="cpu"),
        timed(make_record, "probe", "sam", 0, 50.0),
        timed(make_record, "large", "sam", 0, 50.0, device="cpu"),
        timed(make_record, "patch8", "sam", 0, None),
    ]
    cost = costs(scores([*rows, Run("mine", "mae", 0, 1.0, "")]), "default")
    assert cost.loc["probe", ["time_ratio", "timed", "other_device"]].tolist() == [0.5, 1, 1]
    for setting in ("large", "patch8", "mine"):
        assert cost.loc[setting, "time_ratio"] is None
    assert cost.loc["mine", "params"] is None


def brute_force_predictions(means, cost, target):
    """All subsets by plain loops and scipy."""
    others = [s for s in means if s != target]
    z = {s: (means[s] - means[s].mean()) / np.std(means[s]) for s in others}
    found = {}
    for size in range(1, len(others) + 1):
        for subset in itertools.combinations(others, size):
            tau = kendalltau(sum(z[s] for s in subset), means[target]).statistic
            found[subset] = (sum(cost[s] for s in subset), tau)
    front = {
        s
        for s, (price, tau) in found.items()
        if not any((p <= price and t > tau) or (p < price and t >= tau) for p, t in found.values())
    }
    return found, front


def test_predictions_equal_a_brute_force_search():
    rng = np.random.default_rng(0)
    means = pd.DataFrame(rng.normal(size=(9, 5)).round(3), columns=list("abcde"))
    cost = pd.Series({"a": 1.0, "b": 0.6, "c": 4.1, "d": 1.8, "e": 2.3}, dtype=object)
    for target in means:
        found, front = brute_force_predictions(means, cost, target)
        table = predict_target(means, cost, target)
        assert dict(zip(table["settings"], table["tau"], strict=True)) == pytest.approx(
            {s: t for s, (_, t) in found.items()}
        )
        assert dict(zip(table["settings"], table["cost"], strict=True)) == pytest.approx(
            {s: p for s, (p, _) in found.items()}
        )
        assert set(table.loc[table["front"], "settings"]) == front
        assert table["cost"].is_monotonic_increasing


def test_predictions_leave_out_what_they_cannot_judge():
    means = pd.DataFrame(
        {
            "t": [1.0, 2, 3, 4, np.nan],
            "full": [1.0, 2, 4, 3, 9],
            "sparse": [1.0, 2, np.nan, np.nan, 9],
            "no time": [4.0, 3, 2, 1, 9],
        }
    )
    cost = pd.Series({"t": 1.0, "full": 2.0, "sparse": 1.0, "no time": None}, dtype=object)
    table = predict_target(means, cost, "t")
    assert set(table["settings"]) == {("full",), ("no time",), ("full", "no time")}
    assert (table["n"] == 4).all()
    assert table.loc[table["front"], "settings"].tolist() == [("full",)]
    assert table.set_index("settings")["tau"][("full",)] == pytest.approx(2 / 3)
    assert predict_target(means.head(2), cost, "t").empty
    assert predict_target(means[["t"]], cost, "t").empty

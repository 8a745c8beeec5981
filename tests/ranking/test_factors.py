import pytest

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.factors import factors


@pytest.fixture
def shift(make_record):
    """Runs of three models that train on Cityscapes or GTA V and are evaluated on three sets."""

    def make(train, scores):
        found = []
        for k, vfm in enumerate(("mae", "sam", "dfn")):
            record = make_record(
                vfm,
                "cityscapes",
                train_dataset=train,
                train_seconds=100.0,
                device="cpu",
                world_size=1,
                evaluations={
                    name: {"miou": values[k]}
                    for name, values in scores.items()
                    if name != "cityscapes"
                },
                miou=scores["cityscapes"][k],
            )
            for part in (record, *map(record.on, record.evaluations)):
                found.append(Run(part.setting, vfm, 0, part.miou, f"{train}/{vfm}", part))
        return found

    return make(
        "cityscapes", {"cityscapes": (60, 50, 40), "bdd100k": (30, 40, 20), "acdc": (10, 20, 30)}
    ) + make("gta", {"cityscapes": (33, 32, 31), "bdd100k": (21, 23, 22), "acdc": (1, 2, 3)})


def test_shifts_are_compared_with_the_same_model_settings_without_the_shift(shift):
    a = analyse(shift, "cityscapes")
    found = {(c.setting, c.baseline): c.agreement.tau for c in a.comparisons}
    assert found == pytest.approx(
        {
            ("gta2cityscapes", "cityscapes"): 1.0,
            ("b16_linear_cityscapes2bdd100k", "cityscapes"): 1 / 3,
            ("b16_linear_cityscapes2acdc", "cityscapes"): -1.0,
            ("b16_linear_gta2bdd100k", "cityscapes"): -1 / 3,
            ("b16_linear_gta2acdc", "cityscapes"): -1.0,
        }
    )
    assert {c.setting: c.paper_tau for c in a.comparisons}["gta2cityscapes"] == 0.73


def test_a_shift_is_compared_with_target_and_source(shift):
    a = analyse(
        [r for r in shift if r.setting in ("cityscapes", "b16_linear_cityscapes2acdc")]
        + [Run("default", v, 0, s, v) for v, s in (("mae", 3), ("sam", 2), ("dfn", 1))]
        + [Run("b16_linear_acdc", v, 0, s, v) for v, s in (("mae", 1), ("sam", 3), ("dfn", 2))]
    )
    found = [(c.setting, c.baseline) for c in a.comparisons]
    assert a.baseline == "default"
    assert found[-2:] == [
        ("b16_linear_cityscapes2acdc", "b16_linear_acdc"),
        ("b16_linear_cityscapes2acdc", "cityscapes"),
    ]


def test_evaluations_of_one_training_are_paid_once(shift):
    a = analyse(shift, "cityscapes")
    table = a.predictions["gta2cityscapes"]
    table = dict(zip(table["settings"], table["cost"], strict=True))
    assert table["cityscapes", "b16_linear_cityscapes2acdc"] == 1.0
    assert table["cityscapes", "b16_linear_gta2acdc"] == 2.0
    assert table["b16_linear_gta2acdc", "b16_linear_gta2bdd100k"] == 1.0


def test_factors_are_read_from_the_record_or_else_from_the_name(make_record):
    record = make_record("mae", "probe", eval_dataset="mine")
    assert factors(Run("x", "mae", 0, 1.0, "p", record)) == {
        "size": "b",
        "patch": 16,
        "decoder": "linear",
        "frozen encoder": True,
        "training data": "ade20k",
        "training fraction": "1",
        "steps": None,
        "evaluation data": "mine",
    }
    named = factors(Run("gta2cityscapes", "mae", 0, 1.0, "t line 2"))
    assert (named["training data"], named["evaluation data"]) == ("gta", "cityscapes")
    named = factors(Run("l8_mask2former_camvid", "mae", 0, 1.0, "t line 2"))
    assert (named["size"], named["patch"], named["decoder"]) == ("l", 8, "mask2former")
    assert factors(Run("quick test", "mae", 0, 1.0, "t line 2")) is None

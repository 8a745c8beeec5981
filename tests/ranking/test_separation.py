"""Runs of different configurations never share a setting's name, nor a VFM's, in a ranking."""

from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from vfm_ss.protocol.identity import config_hash, identity
from vfm_ss.protocol.runs import Run, drop_duplicates
from vfm_ss.protocol.settings import SETTINGS, config_name, is_published
from vfm_ss.protocol.vfms import VFMS
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.separation import separate

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model.backbone.type": "X",
    "model.backbone.pretrained": True,
    "model.decode_head.type": "LinearHead",
    "optim_wrapper.optimizer.lr": 1e-4,
    "train_cfg.effective_batch": 16,
    "train_cfg.max_iters": 40000,
    "train_dataloader.dataset.pipeline.1.prob": 0.5,
}


@pytest.fixture
def run(make_record):
    """`run(vfm, seed, **fields)`: a run; names with a dot change the config."""

    def make(vfm="mae", seed=0, setting="default", path=None, **fields):
        changed = {k.replace("__", "."): v for k, v in fields.items() if "__" in k}
        fields = {k: v for k, v in fields.items() if "__" not in k}
        config = {**CONFIG, "model.backbone.type": vfm, **changed}
        if "train_cfg.max_iters" in changed:
            steps = changed["train_cfg.max_iters"]
            fields |= {"step": steps, "max_steps": steps}
        known = {"config": config, "config_hash": config_hash(config), "effective_batch": 16}
        record = make_record(vfm, setting, seed, **{**known, "crop_size": [512, 512], **fields})
        name = path or f"{setting}/{vfm}/{seed}/{len(made)}"
        made.append(name)
        return Run(record.setting, record.vfm, seed, record.miou, name, record)

    made = []
    return make


def old(one, **fields):
    """Return a run as a record of schema 1 tells it."""
    record = replace(
        one.record, schema=1, config=None, config_hash=None, crop_size=None, weights=None,
        model_name=None, **fields,
    )  # fmt: skip
    return replace(one, record=record, vfm=record.vfm)


def names(runs):
    return [(r.setting, r.vfm) for r in runs]


def test_one_configuration_stays_as_it_is(run):
    runs = [run(vfm, seed) for vfm in ("mae", "sam") for seed in (0, 1)]
    assert separate(runs) == (runs, [])
    table = [Run("default", "mae", 0, 1.0, "t.csv line 2")]
    assert separate(table) == (table, [])


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"optim_wrapper__optimizer__lr": 0.001}, "lr=0.001", "optimizer.lr was 0.0001, is 0.001"),
        ({"train_cfg__max_iters": 100, "effective_batch": None}, "steps=100", "max_iters was"),
        ({"crop_size": [256, 512]}, "crop=256x512", "crop size was [512, 512], is [256, 512]"),
        ({"train_dataloader__dataset__indices": 4, "data": {
            "train_samples": 4, "fraction": None, "subset_seed": None}},
         "indices=4", "dataset.indices was not set, is 4"),
        ({"data": {"train_samples": 4, "fraction": None, "subset_seed": None}},
         "samples=4", "training samples was 20, is 4"),
        ({"optim_wrapper__paramwise_cfg__layer_decay": 0.65}, "layer_decay=0.65", "layer_decay"),
        ({"train_dataloader__dataset__pipeline__1__prob": 0.0}, "prob=0.0", "prob was 0.5, is 0.0"),
        ({"model__backbone__drop_path_rate": 0.1}, "drop_path_rate=0.1", "drop_path_rate was not"),
        ({"model__backbone__frozen_stages": 6}, "frozen_stages=6", "frozen_stages was not set"),
        ({"model__backbone__lora__r": 8}, "lora_r=8", "backbone.lora.r was not set, is 8"),
        ({"model__backbone__frozen": True}, "frozen=True", "backbone.frozen was not set, is true"),
    ],
)  # fmt: skip
def test_what_a_setting_fixes_is_not_mixed(run, changes, name, told):
    data = {"train_samples": 20, "fraction": None, "subset_seed": None}
    same = [run(vfm, seed, data=data) for vfm in ("mae", "sam") for seed in (0, 1)]
    other = run("dfn", 0, **{"data": data, **changes})
    runs, notes = separate([other, *same])
    assert names(runs) == [(f"default@{name}", "dfn"), *names(same)]
    (note,) = notes
    assert note.startswith(
        "default: NOT MIXED: runs of different configurations. dfn (seed 0) became the setting "
        f"default@{name}; against mae (seed 0, 1), sam (seed 0, 1): "
    )
    assert told in note
    assert list(analyse(runs, notes=notes).settings) == ["default", f"default@{name}"]


def test_what_earlier_versions_counted_and_has_no_effect_splits_nothing(run):
    earlier = {"model__test_cfg__window_batch": 4, "model__backbone__with_cp": True}
    runs = [run(), run(seed=1, **earlier), run("sam", **earlier)]
    assert separate(runs) == (runs, [])


def test_what_belongs_to_a_vfm_may_differ_between_vfms(run):
    weights = {"source": "w", "sha256": "a" * 64}
    own = {
        "model__backbone__out_indices": [11], "model__data_preprocessor__mean": [1, 2, 3],
        "model__decode_head__in_channels": 384, "weights": weights, "model_name": "vit_x",
    }  # fmt: skip
    runs = [run("mae"), run("dfn", **own)]
    assert separate(runs) == (runs, [])


def test_many_differences_are_a_checksum_and_the_note_tells_three(run):
    changes = {f"train_dataloader__dataset__pipeline__{k}__prob": 1 for k in range(2, 7)}
    runs, (note,) = separate([run("mae"), run("sam"), run("dfn", **changes)])
    _, _, suffix = runs[2].setting.partition("@")
    assert len(suffix) == 8
    assert set(suffix) <= set("0123456789abcdef")
    assert note.endswith("pipeline.4.prob was not set, is 1; and 2 more.")


def test_the_seeds_of_a_vfm_are_one_model(run):
    """They were averaged, or dropped as duplicates."""
    whole = {"source": "x of https://huggingface.co/x", "sha256": "a" * 64}
    file = {"source": "mine.pth", "sha256": "b" * 64}
    runs = [run("mae", seed, weights=whole) for seed in (0, 1)]
    runs += [run("mae", 0, weights=file, miou=10.0), run("mae", 1, model__backbone__depth=3)]
    runs += [run("mae", 0, "probe", weights=file, miou=9.0)]
    found, notes = separate(runs)
    assert names(found) == [
        ("default", "mae"), ("default", "mae"), ("default", "mae@weights=bbbbbbbb"),
        ("default", "mae@depth=3"), ("probe", "mae@weights=bbbbbbbb"),
    ]  # fmt: skip
    assert len(notes) == 2
    assert f'weights was "{"a" * 64}", is "{"b" * 64}"' in notes[0]
    assert "mae (seed 1) became the model mae@depth=3" in notes[1]
    kept, skipped = drop_duplicates(found)
    assert (len(kept), skipped) == (5, [])
    a = analyse(kept)
    assert a.means["default"].to_dict() == {
        "mae": 50.0, "mae@weights=bbbbbbbb": 10.0, "mae@depth=3": 50.0,
    }  # fmt: skip


def test_weights_whose_checksum_is_not_known_are_not_called_other_weights(run):
    hub = "model.safetensors of https://huggingface.co/x"
    runs = [
        run("mae", 0, weights={"source": hub, "sha256": "a" * 64}, model_name="vit_b.mae"),
        run("mae", 1, weights={"source": hub, "sha256": None}, model_name="vit_b.mae"),
        run("mae", 2, weights={"source": "/x.pth", "sha256": "a" * 64}, model_name="vit_b"),
        run("mae", 3, weights={"source": "random", "sha256": None}, model_name="vit_b"),
    ]
    found, (note,) = separate(runs)
    assert [r.vfm for r in found] == ["mae", "mae", "mae", "mae@weights=random"]
    assert 'is "random"' in note


def test_the_same_run_twice_is_still_a_duplicate(run):
    runs, notes = separate([run("mae", 0), run("mae", 0, miou=40.0)])
    assert notes == []
    _, (skipped,) = drop_duplicates(runs)
    assert "duplicate of default/mae/0/0: mae under default with seed 0 again" in skipped.reason


def test_two_models_of_timm_are_two_vfms(run):
    names_ = ("vit_tiny_patch16_224@random", "vit_small_patch16_224@random")
    runs, notes = separate([run(name) for name in names_])
    assert ([r.vfm for r in runs], notes) == ([*names_], [])
    # Records of schema 1 call both timmvit; the names of their configs tell them apart.
    runs = [old(run("timmvit"), name=name) for name in ("tiny", "small")]
    found, (note,) = separate(runs)
    assert [r.vfm for r in found] == ["timmvit", "timmvit@config=small"]
    assert 'config file was "tiny", is "small"' in note
    assert drop_duplicates(found)[1] == []


def test_records_of_schema_1_are_ranked_as_before(run):
    runs = [old(run(vfm, seed)) for vfm in ("mae", "sam") for seed in (0, 1)]
    assert separate(runs) == (runs, [])
    other = old(run("dfn", effective_batch=8))
    found, (note,) = separate([*runs, other])
    assert found[-1].setting == "default@batch=8"
    assert "train_cfg.effective_batch was 16, is 8" in note


def test_records_of_schema_1_join_what_they_fit_and_that_is_said(run):
    half = {"train_cfg__effective_batch": 8, "effective_batch": 8}
    runs = [run("mae", 0), run("mae", 1, **half), old(run("mae", 2))]
    runs += [old(run("sam", 0, effective_batch=8))]
    found, notes = separate(runs)
    # Two VFMs trained with 8 images, one with 16.
    assert [r.setting for r in found] == [
        "default@batch=16", "default", "default@batch=16", "default"
    ]  # fmt: skip
    assert sum("do not say their configuration (schema 1)" in note for note in notes) == 2
    found, (note,) = separate([run("mae"), run("sam"), old(run("dfn", effective_batch=8))])
    assert found[-1].setting == "default@batch=8"
    assert note.endswith("sam (seed 0): train_cfg.effective_batch was 16, is 8.")
    # Configs of two names and one seed are no repetition of each other.
    again = [old(run("mae", 0)), old(run("mae", 0), name="mae_b16_linear_ade20k_long")]
    found, _ = separate(again)
    assert [r.vfm for r in found] == ["mae", "mae@config=mae_b16_linear_ade20k_long"]


def test_who_keeps_the_name(run):
    """That of most VFMs, then of most runs."""
    slow = {"optim_wrapper__optimizer__lr": 1e-5}
    runs, _ = separate([run("mae", 0), run("mae", 1), run("sam", **slow), run("dfn", **slow)])
    assert [r.setting for r in runs] == ["default@lr=0.0001"] * 2 + ["default"] * 2
    runs, _ = separate([run("mae", 0), run("mae", 1), run("sam", **slow)])
    assert [r.setting for r in runs] == ["default"] * 2 + ["default@lr=1e-05"]
    a, b = run("mae", path="b"), run("sam", path="a", **slow)
    assert [r.setting for r in separate([a, b])[0]] == ["default@lr=0.0001", "default"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_benchmarks_own_configs_are_never_split(setting, make_record):
    runs = []
    for vfm in VFMS:
        if is_published(vfm, setting):
            cfg = Config.fromfile(ROOT / "configs" / "vfm" / f"{config_name(vfm, setting)}.py")
            found = identity(cfg)
            known = {"config": found, "config_hash": config_hash(found)}
            record = make_record(vfm, setting, **known)
            runs.append(Run(setting, vfm, 0, 1.0, vfm, record))
    assert len(runs) >= 18
    assert separate(runs) == (runs, [])

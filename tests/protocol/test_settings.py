import subprocess
import sys
from fractions import Fraction

import pytest

from vfm_ss.protocol.settings import (
    DATA,
    DECODERS,
    SETTINGS,
    ConfigName,
    all_config_names,
    config_name,
    decoder_name,
    parse_config_name,
    setting_name,
    split_decoder,
)
from vfm_ss.protocol.vfms import FAMILIES, VFMS


def test_the_eight_settings_have_the_config_names_of_the_design():
    expected = {
        "default": "dinov2_b16_linear_ade20k",
        "probe": "dinov2_b16_probe_ade20k",
        "mask2former": "dinov2_b16_mask2former_ade20k",
        "large": "dinov2_l16_linear_ade20k",
        "patch8": "dinov2_b8_linear_ade20k",
        "voc2012": "dinov2_b16_linear_voc2012",
        "cityscapes": "dinov2_b16_linear_cityscapes",
        "gta2cityscapes": "dinov2_b16_linear_gta2cityscapes",
    }
    assert {name: config_name("dinov2", name) for name in SETTINGS} == expected
    assert list(SETTINGS) == list(expected)


def test_every_setting_changes_one_thing_of_the_default():
    def parts(s):
        return {"size": s.size, "patch": s.patch, "decoder": s.decoder, "data": s.data.name}

    default = parts(SETTINGS["default"]).items()
    for name, setting in SETTINGS.items():
        assert len(default - parts(setting).items()) == (0 if name == "default" else 1)


def test_data_facts_follow_the_setting():
    gta = SETTINGS["gta2cityscapes"].data
    assert (gta.train, gta.eval) == ("gta", "cityscapes")
    assert (gta.crop_size, gta.num_classes, gta.steps) == (1024, 19, 20_000)
    default = SETTINGS["default"].data
    assert (default.crop_size, default.num_classes, default.steps) == (512, 150, 40_000)
    voc = SETTINGS["voc2012"].data
    assert (voc.crop_size, voc.num_classes, voc.steps) == (512, 21, 20_000)
    assert [s.name for s in SETTINGS.values() if s.decoder == "probe"] == ["probe"]


def test_published_taus_are_ones_that_ten_models_without_ties_can_have():
    taus = [tau for s in SETTINGS.values() for tau in s.paper_tau.values()]
    assert len(taus) == 8
    possible = {round(1 - 2 * swaps / 45, 2) for swaps in range(46)}
    assert set(taus) <= possible


def test_the_names_of_the_paper_and_the_next_round_trip():
    names = all_config_names()
    vfms = [parse_config_name(name).vfm for name in names]
    assert len(set(names)) == len(names)
    assert sum(vfm in FAMILIES["paper"] for vfm in vfms) == 80
    # Eight settings each, but EUPE has no ViT-L, and AIMv2 nothing else.
    assert sum(vfm in FAMILIES["next"] for vfm in vfms) == 8 * 8 + 7 + 1
    for name in names:
        parts = parse_config_name(name)
        assert str(parts) == name
        assert config_name(parts.vfm, parts.setting) == name
    assert {parse_config_name(n).vfm for n in names} == set(VFMS)


def test_combined_settings_are_named_after_their_parts():
    parts = parse_config_name("deit3-in21k_l8_mask2former_gta2cityscapes")
    assert parts == ConfigName("deit3-in21k", "l", 8, "mask2former", "gta2cityscapes")
    assert parts.setting == "l8_mask2former_gta2cityscapes"


@pytest.mark.parametrize(
    ("name", "fraction", "steps", "setting"),
    [
        ("b16_linear_ade20k_f16", Fraction(1, 16), None, "b16_linear_ade20k_f16"),
        ("b16_linear_ade20k_f3of4", Fraction(3, 4), None, "b16_linear_ade20k_f3of4"),
        ("b16_linear_ade20k_10k", Fraction(1), 10_000, "b16_linear_ade20k_10k"),
        ("b16_linear_ade20k_40k", Fraction(1), 40_000, "default"),
        ("b8_mask2former-probe_voc2012_f4_300steps", Fraction(1, 4), 300, None),
        ("b16_linear_a_f_2_f64", Fraction(1, 64), None, None),
    ],
)
def test_fraction_and_steps_are_told_where_they_depart(name, fraction, steps, setting):
    parts = parse_config_name(f"mae_{name}", own=True)
    assert (parts.fraction, parts.steps) == (fraction, steps)
    assert str(parts) == f"mae_{name}"
    assert parts.setting == (setting or name)


def test_a_record_s_setting_knows_fraction_and_steps(make_record):
    part = {"train_samples": 1263, "fraction": 0.0625, "subset_seed": 0}
    assert make_record(data=part).setting == "b16_linear_ade20k_f16"
    assert make_record(data={**part, "fraction": None}).setting == "default"
    steps = dict(step=300, max_steps=300)
    assert make_record(**steps, effective_batch=16).setting == "b16_linear_ade20k_300steps"
    assert make_record(**steps).setting == "default", "not known to be optimiser steps"
    own = dict(train_dataset="mine", eval_dataset="mine", effective_batch=16, **steps)
    assert make_record(**own).setting == "b16_linear_mine"
    assert make_record(**own, name="mae_b16_linear_mine_300steps").setting == (
        "b16_linear_mine_300steps"
    )
    assert make_record(**own, name="mae_b16_linear_mine_10k").setting == "b16_linear_mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov2_b16_linear_ade20k_f2of4", "in lowest terms"),
        ("dinov2_b16_linear_ade20k_f1", "in lowest terms"),
        ("dinov2_b16_linear_ade20k_f5of4", "at most 1"),
        ("dinov2_b16_linear_ade20k_2000steps", "10k, others 300steps"),
        ("dinov4_b16_linear_ade20k", "unknown VFM in 'dinov4_b16_linear_ade20k': 'dinov4'"),
        ("dinov2_b16_upernet_ade20k", "unknown decoder"),
        ("dinov2_b16_linear_camvid", "unknown data"),
        ("dinov2_x16_linear_ade20k", "unknown size in .*: 'x', expected one of s, b, l"),
        ("dinov2_b016_linear_ade20k", "not a config name"),
        ("dinov2_b16_linear_ade20k.py", "unknown data"),
        ("", "not a config name"),
    ],
)
def test_names_outside_the_grammar_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        parse_config_name(name)


def test_config_name_refuses_unknown_parts():
    with pytest.raises(ValueError, match="unknown VFM: 'dino', expected one of eva02"):
        config_name("dino", "default")
    with pytest.raises(ValueError, match="unknown setting: 'Default', expected one of default"):
        config_name("dinov2", "Default")


def test_a_projects_own_vfm_and_dataset_parse_when_asked_for():
    parts = parse_config_name("tiny_vit_b16_probe_camvid", own=True)
    assert (parts.vfm, parts.data, parts.setting) == ("tiny_vit", "camvid", "b16_probe_camvid")
    assert parse_config_name("tiny_t8_linear_demo", own=True).setting == "t8_linear_demo"


def test_setting_name_of_own_datasets_and_unknown_fields():
    assert setting_name("b", 16, "linear", "demo", "demo") == "b16_linear_demo"
    assert setting_name(None, None, "probe", "demo", "demo") == "probe_demo"
    assert setting_name("b", 16, "linear", "synthia", "cityscapes") == (
        "b16_linear_synthia2cityscapes"
    )
    for name, s in SETTINGS.items():
        assert setting_name(s.size, s.patch, s.decoder, s.data.train, s.data.eval) == name
    assert set(DATA) == {"ade20k", "voc2012", "cityscapes", "gta2cityscapes"}


def test_importing_settings_and_records_needs_only_the_standard_library():
    code = (
        "import sys, vfm_ss.protocol.settings, vfm_ss.protocol.records;"
        "print([m for m in ('torch', 'mmengine', 'numpy', 'pandas') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_vfm_is_refused_at_a_size_at_which_it_is_not_published():
    with pytest.raises(ValueError, match="arch of AIMv2 must be 'large', got 'base'"):
        config_name("aimv2", "default")
    assert config_name("aimv2", "large") == "aimv2_l16_linear_ade20k"


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_is_its_head_and_whether_the_encoder_is_frozen(decoder):
    """What a record is called is the cell of a sweep, for each pair of head and freezing once."""
    heads = {"dinov3-probe": ("bn-linear", True), "probe": ("linear", True)}
    default = (decoder.removesuffix("-probe"), decoder.endswith("-probe"))
    assert decoder_name(*heads.get(decoder, default)) == decoder
    found = [split_decoder(other) for other in DECODERS]
    assert found.count(split_decoder(decoder)) == 1
    assert split_decoder(decoder)[1] == decoder.endswith("probe")


def test_the_head_of_dinov3_s_probe_on_a_trained_encoder_is_no_probe():
    assert decoder_name("bn-linear", frozen=False) == "bn-linear"
    assert decoder_name("linear", frozen=True) == "probe"
    assert decoder_name("myhead", frozen=True) == "myhead-probe"


def test_dinov3_s_probe_is_a_setting_of_its_own():
    name = parse_config_name("dinov3_b16_dinov3-probe_ade20k")
    assert (name.vfm, name.decoder, name.setting) == (
        "dinov3", "dinov3-probe", "b16_dinov3-probe_ade20k"
    )  # fmt: skip
    assert setting_name("b", 16, "probe", "ade20k", "ade20k") == "probe"

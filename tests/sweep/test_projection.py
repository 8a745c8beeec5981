"""What a sweep will cost, from records: whose, and what is said where there are none."""

import json
from dataclasses import asdict

import pytest

from vfm_ss.sweep.factors import of_factors, of_settings
from vfm_ss.sweep.plan import expand
from vfm_ss.sweep.projection import describe, estimate, known_records


@pytest.fixture
def records(tmp_path, make_record):
    """Of three VFMs on a GPU, and one on another device, which is not to be mixed in."""

    def write(name, **changes):
        values = dict(device="H100", world_size=1, effective_batch=16, step_seconds=0.5)
        record = make_record(**{**values, **changes})
        folder = tmp_path / name
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(asdict(record)))

    write("a", vfm="mae", step_seconds=0.5)
    write("b", vfm="mae", step_seconds=0.7, seed=1)
    write("c", vfm="sam", step_seconds=1.0)
    write("d", vfm="mae", setting="probe", step_seconds=0.1)
    write("e", vfm="mae", setting="probe", step_seconds=99.0, device="CPU")
    write("f", vfm="mae", setting="probe", step_seconds=99.0, effective_batch=8)
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "record.json").write_text("{")
    return tmp_path


def test_own_records_then_others_then_the_paper_s_ratio(records):
    known = known_records(records)
    assert len(known) == 4

    def of(vfm, setting, **kwargs):
        found = estimate(of_settings([vfm], [setting]).cells[0], known, **kwargs)
        return found and (round(found.seconds), found.source)

    assert of("mae", "default") == (24_000, "records of this VFM")
    assert of("mae", "default", steps=10) == (6, "records of this VFM")
    assert of("dinov2", "default") == (28_000, "records of other VFMs")  # median of 0.5, 0.7, 1
    assert of("sam", "probe") == (4_000, "records of other VFMs")
    assert of("sam", "patch8") == (72_000, "the default's of this VFM, times the paper's ratio")
    assert of("mae", "cityscapes") is None
    part = of_factors(["mae"], dict(fractions=["1/16"], steps=["10k"])).cells[0]
    assert estimate(part, known).seconds == pytest.approx(6_000)


def test_the_product_and_its_cost_in_words(records):
    product = of_factors(
        ["mae", "sam"], dict(data=["ade20k", "cityscapes"], fractions=["1", "1/4"])
    )
    runs = expand(records / "w", product, seeds=(0, 1))
    text = describe(product, runs, known_records(records), fresh=4)
    lines = text.splitlines()
    assert lines[0] == ("product: 2 VFMs x data ade20k, cityscapes x fractions 1, 1/4: 8 cells")
    rows = [line.split(maxsplit=4) for line in lines[4:8]]
    assert rows[0] == ["default", "2", "4", "08:53:20", "records of this VFM"]
    assert rows[3][0] == "b16_linear_cityscapes_f4"
    assert rows[3][3:] == ["–", "unknown"]
    # 2 fractions x 2 seeds x (24,000 s + 40,000 s)
    assert "projected: 2d 23:06:40 of training for 8 of 16 runs, one after another, on H100" in text
    assert "unknown: the cost of 8 of 16 runs" in text
    assert "4 configs not there yet will be written when the sweep starts" in text


def test_without_records_nothing_is_projected(tmp_path):
    product = of_settings(["mae"], ["default"])
    text = describe(product, expand(tmp_path, product), known_records(tmp_path / "none"))
    assert "projected" not in text
    assert "unknown: the cost of 3 of 3 runs" in text

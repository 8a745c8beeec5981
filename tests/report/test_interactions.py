"""The section "Do settings interact?" in every form of the report."""

import csv
import json
import re

import pytest
from PIL import Image

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.analysis import analyse
from vfm_ss.report.formats import render
from vfm_ss.report.write import write_report

NASTY = "</script>$x$\x1b[2J"
SETTINGS = ("b16_linear_x", "b16_probe_x", "b16_linear_x_f4", "b16_probe_x_f4")
SCORES = {"v": (60, 50, 48, 41), "w": (55, 52, 47, 45), NASTY: (50, 48, 44, 40)}


def analysis(settings=SETTINGS, seeds=(-1, 1)):
    return analyse(
        Run(setting, vfm, k, mean + off, f"{vfm} {setting} {k}")
        for vfm, row in SCORES.items()
        for setting, mean in zip(settings, row, strict=False)
        for k, off in enumerate(seeds)
    )


def test_the_tables_as_text():
    text = render(analysis(), "text", SETTINGS[1])
    part = text[text.index("Do settings interact?") : text.index("Which settings predict")]
    rows = {tuple(re.split(r"  +", line)[1:4]) for line in part.splitlines()}
    assert ("A: b16_linear_x_f4", "−8.67", "1.00") in rows
    assert ("B: b16_probe_x", "−5.00", "0.33") in rows
    assert ("A and B: b16_probe_x_f4", "−13.00", "0.33") in rows
    assert ("A + B, predicted", "−13.67", "−0.33") in rows
    pair = "b16_linear_x_f4 × b16_probe_x"
    off = next(x for x in part.splitlines() if x.startswith(pair) and not set("AB") & set(x))
    assert re.split(r"  +", off)[1] == "+0.67"
    assert "model × training fraction × frozen encoder" in part
    assert "\x1b" not in text


def test_the_tables_and_the_figure_as_files(tmp_path):
    page = write_report(analysis(), tmp_path, SETTINGS[1])
    with open(tmp_path / "tables" / "additive-scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(r["predicted"]), float(r["measured"]), float(r["error"])) for r in rows] == [
        (38, 41, 3), (44, 45, 1), (42, 40, -2),
    ]  # fmt: skip
    with open(tmp_path / "tables" / "variance.csv", newline="") as file:
        shares = [float(row["share"]) for row in csv.DictReader(file)]
    assert len(shares) == 8
    assert sum(shares) == pytest.approx(1)
    with Image.open(tmp_path / "figures" / "interactions.png") as image:
        assert min(image.size) > 300
    found = json.loads((tmp_path / "ranking.json").read_text())
    (pair,) = found["interactions"]
    assert (pair["both"], pair["bias"]) == ("b16_probe_x_f4", pytest.approx(2 / 3))
    assert [m["error"] for m in pair["models"]] == [3, 1, -2]
    (variance,) = found["variance"]
    assert set(variance["shares"]) >= {"vfm", "vfm x first x second", "seeds"}
    source = page.read_text()
    assert '<section id="interactions">' in source
    data = json.loads(re.search(r'id="data">(.*?)</script>', source, re.DOTALL)[1])
    assert data["interactions"] == [
        {"label": "b16_linear_x_f4 × b16_probe_x", "vfm": [0, 1, 2],
         "predicted": [38, 44, 42], "measured": [41, 45, 40]}
    ]  # fmt: skip


def test_without_combinations_there_is_no_section(tmp_path):
    a = analysis(SETTINGS[:2])
    assert "interact" not in render(a, "text", SETTINGS[1])
    assert json.loads(render(a, "json", SETTINGS[1]))["interactions"] == []
    source = write_report(a, tmp_path, SETTINGS[1]).read_text()
    assert '<section id="interactions">' not in source
    assert not (tmp_path / "figures" / "interactions.png").exists()


def test_all_scores_equal_is_no_error():
    a = analyse(
        Run(setting, vfm, k, 50.0, f"{vfm} {setting} {k}")
        for vfm in "vwx"
        for setting in SETTINGS
        for k in (0, 1)
    )
    assert a.interactions[0].rmse[0] == 0
    assert set(a.variances[0].shares["share"]) == {0.0}
    render(a, "text", SETTINGS[1])

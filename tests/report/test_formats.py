import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfm_ss.protocol.runs import Run, Skipped, collect
from vfm_ss.protocol.score_tables import read_results
from vfm_ss.ranking.analysis import analyse
from vfm_ss.report.formats import latex, markdown, render, table_csv, text
from vfm_ss.report.table_data import Column, Table, Value, certainty, digits, duration, title
from vfm_ss.report.tables import all_tables
from vfm_ss.text import from_cell, printable, to_cell

NASTY = r"""<script>alert("1")</script> & 'q' \input{/etc/passwd} $x^2$ #_%~{} |`*[a](b)"""


@pytest.fixture
def analysis(tmp_path, write_grid):
    root = write_grid(tmp_path, vfms=("mae", "sam", "dinov2"), settings=("default", "probe"))
    runs, _ = collect([root])
    runs = [r for r in runs if (r.setting, r.vfm) != ("probe", "sam")]
    return analyse(runs, skipped=[Skipped("bad.json", "the file is empty")])


def test_json_is_the_contract(analysis):
    out = json.loads(render(analysis, "json", "default"))
    assert set(out) == {"settings", "skipped", "interactions", "variance"}
    assert out["skipped"] == [{"path": "bad.json", "reason": "the file is empty"}]
    assert list(out["settings"]) == ["default", "probe"]
    probe = out["settings"]["probe"]
    assert list(probe) == [
        "baseline",
        "n",
        "tau",
        "p_value",
        "tau_ci",
        "time_ratio",
        "trainable_params",
        "models",
    ]
    comparison = analysis.comparisons[0]
    assert probe["baseline"] == "default"
    assert probe["n"] == 2
    assert probe["tau"] == comparison.agreement.tau
    assert probe["p_value"] == comparison.agreement.p_value
    assert probe["tau_ci"] == list(comparison.interval)
    assert probe["time_ratio"] == 2.0
    assert probe["trainable_params"] == 2_000_000
    for model in probe["models"]:
        assert set(model) == {"vfm", "miou_mean", "miou_std", "seeds", "rank", "baseline_rank"}
    assert [m["vfm"] for m in probe["models"]][-1] == "sam"
    assert probe["models"][-1]["miou_mean"] is None
    assert probe["models"][-1]["seeds"] == 0
    default = out["settings"]["default"]
    assert (default["n"], default["tau"], default["time_ratio"]) == (3, None, 1.0)


def test_csv_has_one_row_per_setting_and_model(analysis):
    rows = list(csv.DictReader(io.StringIO(render(analysis, "csv", "default"))))
    out = json.loads(render(analysis, "json", "default"))["settings"]
    assert len(rows) == 6
    for row in rows:
        setting = out[row["setting"]]
        model = next(m for m in setting["models"] if m["vfm"] == row["vfm"])
        assert row["miou_mean"] == ("" if model["miou_mean"] is None else str(model["miou_mean"]))
        assert row["tau"] == ("" if setting["tau"] is None else str(setting["tau"]))


def test_text_says_what_matters(analysis):
    out = render(analysis, "text", "default")
    assert "15 runs: 3 models under 2 settings, ranked by the last validation." in out
    assert "not yet under this setting: sam" in out
    assert "Paper's τ" in out
    assert "0.38" in out
    assert "bad.json" in out
    sam = next(line for line in out.split("Linear probing\n")[-1].splitlines() if "sam" in line)
    assert sam.split() == ["–", "sam", "–", "–", "0", "2", "–"]


@pytest.mark.parametrize("form", ["text", "md", "latex"])
def test_every_number_is_in_every_format(analysis, form):
    out = render(analysis, form, "default")
    for mean in analysis.cells["mean"]:
        assert f"{mean:.2f}" in out


def nasty_table(words=NASTY):
    return Table("key", words, [Column("a", words, numeric=False)], [[words]], words)


def test_markup_in_names_stays_text_in_markdown():
    out = markdown(nasty_table())
    assert "<script" not in out
    assert not re.search(r"(?<!\\)\[a\]", out)
    cells = [line for line in out.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 2 for line in cells)


def tex_tokens(source):
    """Characters that TeX would act on, outside the commands that we write ourselves."""
    for ours in (
        "\\textbackslash{}",
        "\\textasciitilde{}",
        "\\textasciicircum{}",
        "\\textless{}",
        "\\textgreater{}",
        "$\\tau$",
        "$\\times$",
        "$\\pm$",
        "$-$",
    ):
        source = source.replace(ours, "")
    source = re.sub(r"\\[#$%&_{}]", "", source)
    return set(source) & set("\\{}$&#%^_~")


@given(st.text(max_size=40))
def test_no_name_reaches_tex_as_a_command(words):
    lines = latex(nasty_table(words)).splitlines()
    row = lines[lines.index("    \\midrule") + 1]
    assert row.endswith(" \\\\")
    assert tex_tokens(row.removesuffix(" \\\\")) == set()


@given(st.text(max_size=9))
def test_no_name_steers_a_terminal_or_breaks_a_line(words):
    shown = printable(words)
    assert shown.isprintable() or shown == ""
    table = text(nasty_table("x" + words))
    assert table.count("\n") == text(nasty_table("x")).count("\n")


def test_nasty_names_pass_through_every_format():
    names = [NASTY, "=cmd()", "\x1b[31mred", "a\nb", "\udc80"]
    runs = [
        Run(s, v, k, 50.0 + i + k, f"/runs/{v}/record.json")
        for s in ("default", NASTY)
        for i, v in enumerate(names)
        for k in (0, 1)
    ]
    a = analyse(runs, skipped=[Skipped("a\x1b[2J\nb", NASTY)], notes=[NASTY])
    for form in ("text", "md", "csv", "latex"):
        out = render(a, form, "default")
        if form != "csv":
            assert "\x1b" not in out
            assert "\udc80" not in out
    assert len(json.loads(render(a, "json", "default"))["settings"]) == 2


def test_files_hold_the_key_of_a_setting_and_people_read_its_title(analysis, tmp_path):
    tables = {t.key: t for t in all_tables(analysis, "default")}
    (tmp_path / "runs.csv").write_text(table_csv(tables["runs"]))
    read, skipped = read_results(tmp_path / "runs.csv")
    assert skipped == []
    assert [r.setting for r in read] == [r.setting for r in analysis.runs]
    for table in tables.values():
        keys = {column.key: i for i, column in enumerate(table.columns)}
        for name in {"setting", "baseline"} & keys.keys():
            found = {row[keys[name]] for row in table.rows}
            assert found <= set(analysis.settings), table.key
            assert {row[keys[name]] for row in table.shown()} == {title(key) for key in found}


def test_table_csv_is_exact_and_leaves_gaps_empty():
    table = Table(
        "k",
        "t",
        [Column("a", "A"), Column("b", "B"), Column("c", "C")],
        [[Value(1 / 3, "s"), None, "x,y"], [float("nan"), (0.5, 1.0), 'say "hi"']],
    )
    rows = list(csv.reader(io.StringIO(table_csv(table))))
    assert rows == [["a", "b", "c"], [str(1 / 3), "", "x,y"], ["", "0.5 1.0", 'say "hi"']]


def test_numbers_read_well():
    assert digits(2)(-0.004) == "0.00"
    assert digits(2)(-0.5) == "−0.50"
    assert digits(0, sign=True)(3) == "+3"
    assert digits(0, sign=True)(0) == "0"
    assert digits(0)(1234567) == "1,234,567"
    assert [duration(s) for s in (0.0512, 59, 3600, 36000)] == [
        "0.0512 s",
        "59 s",
        "60.0 min",
        "10.0 h",
    ]
    assert [certainty(x) for x in (0.5, 0.994, 1.0)] == ["50 %", ">99 %", "100 %"]


def test_empty_columns_are_dropped_only_where_asked():
    columns = [Column(k, k) for k in "abc"]
    table = Table("k", "t", columns, [[1, None, None], [2, "", None]])
    assert [c.key for c in table.without_empty("b").columns] == ["a", "c"]
    assert table.without_empty("b").rows == [[1, None], [2, None]]


words = st.text(st.sampled_from("=+-@'\t\r\n;a ") | st.characters(exclude_categories=["Cs"]))


@given(words)
def test_no_word_begins_a_formula_and_every_word_comes_back(word):
    cell = to_cell(word)
    assert all(part.lstrip(" ")[:1] not in tuple("=+-@") for part in re.split(r"[;\t\r\n]", cell))
    assert cell[:1] not in ("\t", "\r")
    assert from_cell(cell) == word


FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-x", "@SUM(A1)", "'=1", "''", "a;=1", "it's", '=1,2"3"']


def test_names_that_are_formulas_leave_as_text_and_are_read_back(tmp_path):
    runs = [
        Run(setting, vfm, 0, 40.0 + sign * i, "x")
        for setting, sign in (("=s", 1), ("-t", -1))
        for i, vfm in enumerate(FORMULAS)
    ]
    analysis = analyse(runs, baseline="=s")
    (table,) = (t for t in all_tables(analysis, "-t") if t.key == "runs")
    for written in (render(analysis, "csv", "-t"), table_csv(table)):
        rows = list(csv.reader(io.StringIO(written)))
        head, body = rows[0], rows[1:]
        names = [head.index("setting"), head.index("vfm")]
        for row in body:
            assert all(row[i][0] not in "=+-@" for i in names)
            assert ";=" not in "".join(row)
        if "tau" in head:  # a number below 0 stays one
            assert {row[head.index("tau")] for row in body} == {"", "-1.0"}
    (tmp_path / "runs.csv").write_text(table_csv(table))
    read, skipped = read_results(tmp_path / "runs.csv")
    assert skipped == []
    assert {(r.setting, r.vfm, r.seed, r.miou) for r in read} == {
        (r.setting, r.vfm, r.seed, r.miou) for r in runs
    }

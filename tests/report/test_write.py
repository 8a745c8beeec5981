import base64
import hashlib
import json
import re
import resource
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from vfm_ss.protocol.runs import Run, Skipped, collect
from vfm_ss.ranking.analysis import analyse
from vfm_ss.report.page import page
from vfm_ss.report.plot_data import plot_data
from vfm_ss.report.write import file_name, write_report

NASTY = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{7*7}}"""


class Page(HTMLParser):
    """Elements, and the text of scripts, of a page."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.scripts, self.text, self._script = [], [], "", None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = ""

    def handle_endtag(self, tag):
        if tag == "script":
            self.scripts.append(self._script)
            self._script = None

    def handle_data(self, text):
        if self._script is None:
            self.text += text
        else:
            self._script += text

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture
def analysis(tmp_path, write_grid):
    root = write_grid(
        tmp_path / "work dirs", ("mae", "sam", "dinov2"), ("default", "probe", "large"), seeds=2
    )
    return analyse(collect([root])[0], skipped=[Skipped("bad.json", "the file is empty")])


def nasty_analysis():
    names = [NASTY, "javascript:alert(3)", "$x$", "\\frac{"]
    runs = [
        Run(s, v, k, 50.0 + i * (1 + len(s)) + k, f"{v}/\udc80/record.json")
        for s in ("default", NASTY, "$\\frac$")
        for i, v in enumerate(names)
        for k in (0, 1)
    ]
    return analyse(
        runs, skipped=[Skipped(NASTY, NASTY)], outside={NASTY: {"$x$": 1.0}}, notes=[NASTY]
    )


def test_the_page_needs_nothing_from_elsewhere(analysis, tmp_path):
    found = Page(page(analysis, tmp_path, "large"))
    assert found.attributes("src") == []
    links = [a["href"] for tag, a in found.elements if tag == "a" and "href" in a]
    assert [link for link in links if ":" in link] == ["https://arxiv.org/abs/2404.12172"]
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in found.elements)


def test_the_policy_admits_our_two_scripts_and_no_other(analysis, tmp_path):
    found = Page(page(analysis, tmp_path, "large"))
    (policy,) = [a["content"] for _, a in found.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    admitted = set(re.findall(r"'sha256-([^']+)'", policy))
    script_rule = next(rule for rule in policy.split("; ") if rule.startswith("script-src"))
    assert "unsafe" not in script_rule
    code = found.scripts[1:]
    assert len(code) == 2
    digests = {base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in code}
    assert digests == admitted


def test_markup_in_names_stays_text(tmp_path):
    source = page(nasty_analysis(), tmp_path, "default")
    found = Page(source)
    assert len(found.scripts) == 3
    assert not any(tag == "img" for tag, _ in found.elements)
    handlers = [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert handlers == []
    assert NASTY in found.data["vfms"]
    assert NASTY in found.data["settings"]
    assert NASTY in found.text
    for link in found.attributes("href"):
        assert not link.lower().startswith(("javascript:", "data:"))
    assert any(unquote(link).startswith("../javascript:") or "%3A" in link for link in links(found))


def links(found):
    return [a["href"] for tag, a in found.elements if tag == "a" and "href" in a]


def test_every_number_leads_to_its_runs(analysis, tmp_path):
    found = Page(page(analysis, tmp_path, "large"))
    rows = {a["id"]: a for tag, a in found.elements if tag == "tr" and "id" in a}
    assert len(rows) == len(analysis.runs) == 18
    origins = [a for _, a in found.elements if a.get("class") == "origin"]
    for origin in origins:
        members = [
            row for row in rows.values() if row["data-member"].startswith(origin["data-group"])
        ]
        assert rows[origin["href"].removeprefix("#")] in members
        assert len(members) in (2, 6)  # a model's two seeds, or all runs of a setting
    # Every mean is linked: in the overview and under its setting, beside its rank and spread.
    assert len(origins) >= 2 * len(analysis.cells)
    files = [link for link in links(found) if link.endswith("record.json")]
    assert len(files) == 18
    for link in files:
        assert (tmp_path / unquote(link)).is_file()


def test_the_plots_show_the_analysis(analysis, tmp_path):
    data = Page(page(analysis, tmp_path, "large")).data
    assert data["vfms"] == list(analysis.means.index)
    for s, setting in enumerate(analysis.settings):
        assert data["mean"][s] == analysis.means[setting].tolist()
        ranks = analysis.models[setting].set_index("vfm")["rank"]
        assert data["rank"][s] == [float(ranks[v]) for v in data["vfms"]]
    assert [t["tau"] for t in data["taus"]] == [c.agreement.tau for c in analysis.comparisons]
    assert [t["paper"] for t in data["taus"]] == [0.38, 0.87]
    curves = data["curves"][0]
    assert [(c["vfm"], c["seed"]) for c in curves] == [(m, k) for m in range(3) for k in (0, 1)]
    assert all(c["steps"] == [20_000, 40_000] and c["miou"][0] == 20.0 for c in curves)
    last = [sum(c["miou"][1] for c in curves if c["vfm"] == m) / 2 for m in range(3)]
    assert last == pytest.approx(data["mean"][0])
    times = {(s["label"], data["vfms"][m]): (x, miou) for s in data["times"]
             for m, x, miou in zip(s["vfm"], s["x"], s["miou"], strict=True)}  # fmt: skip
    titles = dict(zip(("default", "probe", "large"), (100.0, 200.0, 300.0), strict=True))
    for setting, seconds in titles.items():
        for vfm, miou in analysis.means[setting].items():
            label = data["settings"][analysis.settings.index(setting)]
            assert times[label, vfm] == (seconds, pytest.approx(miou))
    classes = data["classes"][0]
    assert classes["names"] == ["road", "sky", "tree"]
    by_vfm = dict(zip(data["vfms"], classes["iou"], strict=True))
    for vfm, (road, sky, tree) in by_vfm.items():  # ten above and below every run's score
        assert sky is None
        mean = analysis.means["default"][vfm]
        assert (road, tree) == (
            pytest.approx(mean + 10, abs=0.01),
            pytest.approx(mean - 10, abs=0.01),
        )


def test_a_long_curve_is_thinned_from_its_end(make_record):
    history = [[step, 40 + step / 100] for step in range(1, 1001)]
    record = make_record(max_steps=1000, step=1000, miou=50.0, history=history)
    a = analyse([Run("default", "dinov2", 0, 50.0, "x", record)])
    ((curve,),) = plot_data(a, "default")["curves"]
    assert curve["steps"] == list(range(5, 1001, 5))
    assert curve["miou"][-1] == 50.0


def test_a_card_says_that_chance_explains_the_agreement(tmp_path):
    runs = [
        Run(s, vfm, 0, miou, "x")
        for s, scores in (("default", (1, 2, 3, 4)), ("probe", (1, 2, 4, 3)))
        for vfm, miou in zip("abcd", scores, strict=True)
    ]
    text = Page(page(analyse(runs), tmp_path, "default")).text
    # scipy.stats.kendalltau([1, 2, 3, 4], [1, 2, 4, 3]): 0.67, p = 0.333
    assert "τ 0.67 over 4 models; p = 0.333: too few models to tell it from chance" in text


def test_gaps_reach_the_page_as_gaps(tmp_path):
    runs = [Run("default", "a", 0, 1.0, "x"), Run("probe", "b", 0, 2.0, "x")]
    found = Page(page(analyse(runs), tmp_path, "default"))
    assert found.data["mean"] == [[1.0, None], [None, 2.0]]
    assert found.data["taus"][0]["tau"] is None
    assert "too few common models" in found.text


def test_the_report_folder_holds_every_format(analysis, tmp_path):
    out = tmp_path / "out"
    report = write_report(analysis, out, "large")
    assert report == out / "report.html"
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    figures = {"tau", "ranks", "tau-matrix", "predict"}
    figures |= {f"models-{s}" for s in analysis.settings}
    assert {f"figures/{f}.{x}" for f in figures for x in ("png", "pdf")} <= names
    assert {f"ranking.{x}" for x in ("txt", "md", "csv", "json", "tex")} <= names
    assert {"tables/tau.csv", "tables/runs.csv", "tables/miou.csv"} <= names
    assert json.loads((out / "ranking.json").read_text())["settings"]["probe"]["n"] == 3
    for path in (out / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")
    for path in (out / "figures").glob("*.png"):
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(1 << 24)
        assert len(colors) > 50  # something is drawn
    write_report(analysis, out, "large")


def test_a_report_of_nasty_names_stays_in_its_folder(tmp_path):
    out = tmp_path / "deep" / "out"
    write_report(nasty_analysis(), out, "default")
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and out not in p.parents]
    assert outside == []
    folders = {p.relative_to(out) for p in out.rglob("*") if p.is_dir()}
    assert folders == {Path("figures"), Path("tables")}
    assert "<script" not in (out / "ranking.md").read_text(encoding="utf-8")


def test_file_names_are_harmless_and_distinct():
    assert file_name("models-default") == "models-default"
    names = [file_name(k) for k in ("a/b", "a b", "../a", "..", "a.b", "x" * 500)]
    assert len(set(names)) == 6
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,120}", name) for name in names)


def test_what_is_not_written_as_a_whole_leaves_no_part(analysis, tmp_path, monkeypatch):
    """On a full disk, or at an interrupt: half a table would be one of fewer models."""
    write_report(analysis, tmp_path / "whole", "default")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_report(analysis, tmp_path / "part", "default")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for path in (path for path in (tmp_path / "part").rglob("*") if path.is_file()):
        whole = tmp_path / "whole" / path.relative_to(tmp_path / "part")
        assert path.read_bytes() == whole.read_bytes(), path

    def interrupted(self, file, **kwargs):
        file.write(b"half") if hasattr(file, "write") else Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(analysis, tmp_path / "whole", "default")
    assert b"half" not in [path.read_bytes() for path in (tmp_path / "whole" / "figures").iterdir()]

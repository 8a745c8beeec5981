"""The page in a real browser, at the width of a desk and of a phone."""

import html
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from vfm_ss.protocol.runs import Run, collect
from vfm_ss.ranking.analysis import analyse
from vfm_ss.report.page import page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium found: the page is not tested in a browser; install chromium to do so",
)

# Collects what went wrong and, once the page is ready, runs the steps and leaves their answer.
PROBE = """<script>
const wrong = [];
window.addEventListener("error", (event) => wrong.push(event.message));
</script>"""
STEPS = """<script>
const $ = (query) => [...document.querySelectorAll(query)];
const column = (key, n) => $(`[data-key="${key}"] tbody tr`).filter((row) => !row.hidden)
  .map((row) => row.cells[n].textContent.trim());
const answer = (() => { %s })();
const out = document.createElement("pre");
out.id = "answer";
out.textContent = JSON.stringify({ wrong, answer });
document.body.append(out);
</script>"""


def browse(tmp_path, source, *options):
    path = tmp_path / "page.html"
    path.write_text(source, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--virtual-time-budget=10000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def ask(tmp_path, source, steps, *options):
    """Run JavaScript in the loaded page and return (errors, what it returned)."""
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, source)
    dom = browse(
        tmp_path, source.replace("</body>", STEPS % steps + "</body>"), "--dump-dom", *options
    )
    found = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)[1]))
    return found["wrong"], found["answer"]


@pytest.fixture
def analysis(tmp_path, write_grid):
    settings = ("default", "probe", "large")
    root = write_grid(tmp_path / "runs", ("mae", "sam", "dinov2", "dfn"), settings, seeds=2)
    return analyse(collect([root])[0])


def test_every_plot_is_drawn_under_the_pages_own_policy(analysis, tmp_path):
    dom = browse(tmp_path, page(analysis, tmp_path, "large"), "--dump-dom")
    assert 'data-ready="yes"' in dom
    for plot in (
        "tau",
        "matrix",
        "ranks",
        "models",
        "curves",
        "classes",
        "pairs",
        "predict",
        "time",
    ):
        part = re.search(rf'<div class="plot[^"]*" id="plot-{plot}".*?</svg>', dom, re.S)
        assert part is not None, plot
        assert "<path" in part[0] or "<image" in part[0]


def test_tables_sort_and_filter_and_numbers_lead_to_runs(analysis, tmp_path):
    steps = """
      const found = {};
      const heads = $('[data-key="miou"] th button');
      heads[1].click(); found.down = column("miou", 1);
      heads[1].click(); found.up = column("miou", 1);
      heads[0].click(); found.names = column("miou", 0);
      found.sorted = $('[data-key="miou"] th')[0].getAttribute("aria-sort");
      const input = $('[data-key="runs"] input')[0];
      input.value = "probing mae"; input.dispatchEvent(new Event("input"));
      found.filtered = column("runs", 0).concat(column("runs", 1));
      input.value = ""; input.dispatchEvent(new Event("input"));
      $('[data-key="miou"] a.origin')[0].click();
      found.behind = column("runs", 1); found.settings = column("runs", 0);
      found.note = document.getElementById("runs-note").innerText;
      $("#runs-note button")[0].click();
      found.all = column("runs", 0).length;
      const pick = document.getElementById("pick-setting");
      pick.value = "1"; pick.dispatchEvent(new Event("change"));
      found.visible = $(".of-setting").map((part) => !part.hidden);
      found.bars = document.getElementById("plot-models").data[0].x;
      return found;
    """
    wrong, found = ask(tmp_path, page(analysis, tmp_path, "large"), steps)
    assert wrong == []
    means = analysis.means["default"]
    std = analysis.cells.loc["default", "std"]
    order = means.sort_values(ascending=False).index
    expected = [f"{means[vfm]:.2f} ± {std[vfm]:.2f}" for vfm in order]
    assert found["down"] == expected
    assert found["up"] == expected[::-1]
    assert found["names"] == sorted(analysis.means.index)
    assert found["sorted"] == "ascending"
    assert found["filtered"] == ["Linear probing"] * 2 + ["mae"] * 2
    assert found["behind"] == [sorted(means.index)[0]] * 2
    assert set(found["settings"]) == {"Default"}
    assert found["note"].startswith("Showing the 2 of 24 runs")
    assert found["all"] == 24
    assert found["visible"] == [False, True, False]
    assert found["bars"] == sorted(analysis.means["probe"], reverse=True)


def test_it_is_dark_where_the_browser_is(analysis, tmp_path):
    steps = """
      const rgb = (query, property) => getComputedStyle(document.querySelector(query))[property]
        .match(/\\d+/g).slice(0, 3).map(Number);
      const ground = rgb("body", "backgroundColor"), ink = rgb("#plot-tau .xtick text", "fill");
      return [matchMedia("(prefers-color-scheme: dark)").matches, ground, ink];
    """
    source = page(analysis, tmp_path, "large")
    for dark, option in ((False, "1"), (True, "0")):
        option = f"--blink-settings=preferredColorScheme={option}"
        wrong, (matches, ground, ink) = ask(tmp_path, source, steps, option)
        assert wrong == []
        assert matches is dark
        assert (max(ground) < 64) is dark
        assert (min(ink) > 192) is dark
        assert (max(ink) < 64) is not dark


def test_gaps_sort_last_both_ways(tmp_path):
    runs = [Run("default", v, 0, m, "x") for v, m in (("a", 1.0), ("b", 10.0), ("c", 9.0))]
    runs += [Run("probe", "a", 0, 5.0, "x"), Run("probe", "c", 0, 4.0, "x")]
    steps = """
      const head = $('[data-key="miou"] th button')[2];
      head.click(); const down = column("miou", 2);
      head.click(); return [down, column("miou", 2)];
    """
    wrong, found = ask(tmp_path, page(analyse(runs), tmp_path, "default"), steps)
    assert wrong == []
    assert found == [["5.00", "4.00", "–"], ["4.00", "5.00", "–"]]


def test_markup_in_names_is_shown_and_never_run(tmp_path):
    nasty = "<img src=x onerror=\"document.title='run'\"><b>bold</b>&amp;"
    runs = [
        Run(s, v, k, 40.0 + k, "x")
        for s in ("default", nasty)
        for v in (nasty, "b")
        for k in (0, 1)
    ]
    steps = """return [document.title, $("img").length, $("svg b").length,
      $(".plot text").some((text) => text.textContent.includes("<b>bold</b>&amp;"))];"""
    wrong, found = ask(tmp_path, page(analyse(runs), tmp_path, "default"), steps)
    assert wrong == []
    assert found == ["Ranking of vision foundation models", 0, 0, True]


def test_it_fits_a_phone(analysis, tmp_path):
    (tmp_path / "inner.html").write_text(page(analysis, tmp_path, "large"), encoding="utf-8")
    # A headless window is never narrower than 500 pixels; a frame is.
    frame = """<body style="margin:0">
      <iframe src="inner.html" style="width:390px;height:7000px;border:0"></iframe>
      <script>addEventListener("load", () => setTimeout(() => {
        const inner = frames[0].document, boxes = ".scroll, .plot, nav, .sr";
        const wide = [...inner.body.querySelectorAll("*")].filter((e) =>
          !e.closest(boxes) && e.getBoundingClientRect().right > 391).map((e) => e.outerHTML);
        const out = document.createElement("pre");
        out.id = "answer";
        out.textContent = JSON.stringify([inner.documentElement.dataset.ready,
          inner.documentElement.scrollWidth, wide]);
        document.body.append(out);
      }, 1000));</script></body>"""
    dom = browse(tmp_path, frame, "--dump-dom", "--allow-file-access-from-files")
    found = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)[1]))
    assert found == ["yes", 390, []]
    shot = tmp_path / "phone.png"
    browse(tmp_path, frame, "--window-size=500,7000", f"--screenshot={shot}")
    with Image.open(shot) as image:
        assert len(image.convert("RGB").crop((0, 0, 390, 7000)).getcolors(1 << 24)) > 100


def test_two_changes_are_chosen_and_shown(tmp_path):
    names = [f"b16_{d}_x{f}" for f in ("", "_f4", "_f16") for d in ("linear", "probe")]
    runs = [
        Run(setting, vfm, 0, 50.0 - 3 * k * (1 + i) + k * i * i, f"{setting}{vfm}")
        for i, setting in enumerate(names)
        for k, vfm in enumerate(("a", "b", "<c>"))
    ]
    steps = """
      const shown = () => document.querySelector("#plot-interaction").data[1].y;
      const select = document.querySelector("#pick-interaction"), first = shown();
      select.value = 1;
      select.dispatchEvent(new Event("change"));
      return [[...select.options].map((o) => o.text), first, shown(),
              column("additive", 0).length, $("#interactions text").length > 0];
    """
    wrong, found = ask(tmp_path, page(analyse(runs), tmp_path, names[1]), steps)
    assert wrong == []
    labels, first, second, rows, drawn = found
    assert labels == ["b16_linear_x_f16 × b16_probe_x", "b16_linear_x_f4 × b16_probe_x"]
    assert rows == 2
    assert drawn
    by_setting = {(r.setting, r.vfm): r.miou for r in runs}
    vfms = list(analyse(runs).interactions[0].scores.index)
    assert first == [by_setting["b16_probe_x_f16", vfm] for vfm in vfms]
    assert second == [by_setting["b16_probe_x_f4", vfm] for vfm in vfms]

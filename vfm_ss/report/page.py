"""report.html: one self-contained file with sortable tables and interactive plots.

Everything that comes from runs reaches the page escaped by Jinja or as JSON data, and the page's
content security policy lets only our own two scripts run, by their hashes.
"""

import base64
import hashlib
import os
import platform
from datetime import datetime, timezone
from importlib import metadata, resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from plotly.offline import get_plotlyjs

from vfm_ss.ranking.analysis import Analysis
from vfm_ss.report.examples import example_blocks
from vfm_ss.report.plot_data import plot_data
from vfm_ss.report.table_data import (
    Table,
    Value,
    certainty,
    digits,
    interval,
    p_value,
    raw,
    title,
)
from vfm_ss.report.tables import all_tables, count, models_table, prediction_table, summary
from vfm_ss.text import printable
from vfm_ss.version import __version__

_PACKAGES = ("numpy", "pandas", "scipy", "statsmodels")


def page(a: Analysis, folder: str | Path, target: str) -> str:
    """Render the page.

    Args:
        a: The analysis.
        folder: Folder the page will be in; links to runs are relative to it.
        target: Setting whose prediction is shown first.
    """
    environment = Environment(
        loader=PackageLoader("vfm_ss.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = _anchors(a)
    tables = {table.key: table for table in all_tables(a, target)}
    scripts = [_text(get_plotlyjs()), _text(_resource("report.js"))]
    return environment.get_template("report.html.j2").render(
        css=_resource("report.css"),
        plotly=scripts[0],
        script=scripts[1],
        hashes=[_hash(script) for script in scripts],
        summary=summary(a),
        cards=_cards(a),
        notes=[printable(note) for note in a.notes],
        tables={key: _table(table, anchors) for key, table in tables.items()},
        models=[_table(models_table(a, s), anchors) for s in a.settings],
        predictions=[_table(prediction_table(a, s), anchors) for s in a.settings],
        runs=_runs(a, tables["runs"], Path(folder)),
        examples=example_blocks(a),
        data=plot_data(a, target),
        several=len(a.settings) > 1,
        many=len(a.settings) > 2,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        versions=_versions(),
        run_versions=_run_versions(a),
    )


def _cards(a: Analysis) -> list[dict]:
    """The page's headline numbers."""
    first = a.models[a.baseline].iloc[0]
    spread = "" if first.miou_std is None else f" ± {first.miou_std:.2f}"
    cards = [
        {
            "label": f"Best under {title(a.baseline)}",
            "value": first.vfm,
            "note": f"{first.miou_mean:.2f}{spread} % mIoU over {count(first.seeds, 'seed')}",
        }
    ]
    pairs = a.certainty[a.baseline]
    if pairs is not None:
        ahead = pairs[pairs["higher"] == first.vfm]["certainty"].min()
        cards[0]["note"] += f"; ahead of every other in {certainty(ahead)} of redraws"
    known = [c for c in a.comparisons if c.baseline == a.baseline and c.agreement.tau is not None]
    known.sort(key=lambda c: -c.agreement.tau)
    labels = ("Agrees most", "Agrees least") if len(known) > 1 else ("Agreement",)
    for label, c in zip(labels, [*known[:1], *known[-1:]], strict=False):
        limits = "" if not c.interval else f" ({interval(c.interval)})"
        note = f"τ {digits(2)(c.agreement.tau)}{limits} over {c.agreement.n} models"
        if c.agreement.p_value > 0.05:
            note += f"; p = {p_value(c.agreement.p_value)}: too few models to tell it from chance"
        cards.append({"label": label, "value": title(c.setting), "note": note})
    return cards


def _anchors(a: Analysis) -> dict:
    """Map (setting, vfm) and (setting, None) to the group and first row of their runs."""
    anchors = {}
    for i, run in enumerate(a.runs):
        s = a.settings.index(run.setting)
        anchors.setdefault((run.setting, None), (f"s{s}-", i))
        group = f"s{s}-m{a.means.index.get_loc(run.vfm)}-"
        anchors.setdefault((run.setting, run.vfm), (group, i))
    return anchors


def _table(table: Table, anchors: dict) -> dict:
    rows = []
    for row, words in zip(table.rows, table.shown(), strict=True):
        cells = []
        for cell, shown, column in zip(row, words, table.columns, strict=True):
            value = raw(cell)
            link = isinstance(cell, Value) and value is not None
            group, first = (
                anchors.get((cell.setting, cell.vfm), (None, None)) if link else (None, None)
            )
            cells.append(
                {
                    "text": shown,
                    "sort": _sort_key(value if column.numeric or value is None else shown),
                    "numeric": column.numeric,
                    "group": group,
                    "run": first,
                }
            )
        rows.append(cells)
    return {
        "key": table.key,
        "title": table.title,
        "note": table.note,
        "columns": [{"label": c.label, "numeric": c.numeric} for c in table.columns],
        "rows": rows,
    }


def _runs(a: Analysis, table: Table, folder: Path) -> dict:
    """The table of runs, each row an anchor with a link to its file."""
    rendered = _table(table, {})
    anchors = _anchors(a)
    for i, (run, row) in enumerate(zip(a.runs, rendered["rows"], strict=True)):
        row[-1]["href"] = _href(run.path, folder)
        row[0]["id"] = f"run-{i}"
        row[0]["member"] = anchors[run.setting, run.vfm][0]
    return rendered


def _href(path: str, folder: Path) -> str:
    """Return a relative link; quoting makes a name like ``javascript:`` a plain folder."""
    line = path.rpartition(" line ")
    path = line[0] if line[1] and line[2].isdigit() else path
    return quote(os.fsencode(os.path.relpath(path, folder)))


def _sort_key(value) -> str | float | None:
    if isinstance(value, tuple):
        return value[0]
    return value if value is None or isinstance(value, (int, float)) else str(value)


def _resource(name: str) -> str:
    return (resources.files("vfm_ss.report") / "templates" / name).read_text(encoding="utf-8")


def _text(script: str) -> str:
    """Normalise line ends as browsers do before they hash a script."""
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _versions() -> dict[str, str]:
    found = {"vfm_ss": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if version}


def _run_versions(a: Analysis) -> dict[str, str]:
    """Everything that the runs say of their versions, commits and devices."""
    found = {}
    for run in a.runs:
        if run.record is None:
            continue
        facts = {**(run.record.versions or {}), "commit": run.record.commit}
        for key, value in {**facts, "device": run.record.device}.items():
            if value is not None:
                found.setdefault(key, set()).add(value)
    return {key: ", ".join(sorted(values)) for key, values in sorted(found.items())}

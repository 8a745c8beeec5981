"""Tables as text for a terminal, Markdown, LaTeX and CSV, and the analysis as JSON."""

import csv
import io
import json
import math
import re
import textwrap

from tabulate import tabulate

from vfm_ss.ranking.analysis import Analysis
from vfm_ss.ranking.interaction import Interaction
from vfm_ss.ranking.variance import Variance
from vfm_ss.report.table_data import Table, raw
from vfm_ss.report.tables import all_tables, summary, winner
from vfm_ss.text import printable, to_cell

_MARKDOWN = re.compile(r"([\\`*\[\]|#~])")


def render(a: Analysis, form: str, target: str) -> str:
    """Render an analysis.

    Args:
        a: The analysis.
        form: ``'text'``, ``'md'``, ``'csv'``, ``'json'`` or ``'latex'``.
        target: Setting whose ranking is to be predicted.

    Returns:
        The whole output, with a line break at its end.
    """
    if form == "json":
        return json.dumps(as_dict(a), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if form == "csv":
        return _models_csv(a)
    tables = all_tables(a, target, brief=form != "md")
    if form == "latex":
        comments = ["Needs \\usepackage{booktabs}.", summary(a), *a.notes]
        return "\n".join([*(f"% {printable(line)}" for line in comments), *map(latex, tables)])
    one, escape = (text, _wrapped) if form == "text" else (markdown, _md)
    notes = "".join(f"{escape('- ' + note)}\n" for note in a.notes)
    return "\n".join(
        [
            f"{escape(summary(a) + ' ' + winner(a))}\n",
            *([notes] if notes else []),
            *map(one, tables),
        ]
    )


def text(table: Table) -> str:
    """Render a table for a terminal."""
    rows = [[printable(cell) for cell in row] for row in table.shown()]
    labels = [printable(column.label) for column in table.columns]
    body = _tabulate(table, labels, rows, "simple")
    note = f"{_wrapped(table.note)}\n" if table.note else ""
    title = printable(table.title)
    return f"{title}\n{'=' * len(title)}\n{body}\n{note}"


def markdown(table: Table) -> str:
    """Render a table as GitHub Markdown."""
    rows = [[_md(cell) for cell in row] for row in table.shown()]
    labels = [_md(column.label) for column in table.columns]
    note = f"\n{_md(table.note)}\n" if table.note else ""
    return f"## {_md(table.title)}\n\n{_tabulate(table, labels, rows, 'pipe')}\n{note}"


def latex(table: Table) -> str:
    """Render a table as a LaTeX table with booktabs rules."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_tex(table.title)}}}",
        f"  \\begin{{tabular}}{{{align}}}",
        "    \\toprule",
        f"    {' & '.join(_tex(c.label) for c in table.columns)} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(map(_tex, row))} \\\\" for row in table.shown()),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


def table_csv(table: Table) -> str:
    """Render a table as CSV with full precision; a gap is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(to_cell(column.key) for column in table.columns)
    for row in table.rows:
        writer.writerow(map(_cell, map(raw, row)))
    return out.getvalue()


def as_dict(a: Analysis) -> dict:
    """Return the ranking as plain data, ready for JSON."""
    compared = {c.setting: c for c in reversed(a.comparisons) if c.baseline == a.baseline}
    settings = {}
    for setting in a.settings:
        c = compared.get(setting)  # None for the baseline itself
        cost = a.costs.loc[setting]
        settings[setting] = {
            "baseline": a.baseline,
            "n": c.agreement.n if c else int(a.means[setting].notna().sum()),
            "tau": c.agreement.tau if c else None,
            "p_value": c.agreement.p_value if c else None,
            "tau_ci": list(c.interval) if c and c.interval else None,
            "time_ratio": _number(cost["time_ratio"]),
            "trainable_params": None if cost["params"] is None else int(cost["params"]),
            "models": [
                {
                    "vfm": row.vfm,
                    "miou_mean": _number(row.miou_mean),
                    "miou_std": _number(row.miou_std),
                    "seeds": row.seeds,
                    "rank": row.rank,
                    "baseline_rank": row.baseline_rank,
                }
                for row in a.models[setting].itertuples()
            ],
        }
    skipped = [{"path": printable(s.path), "reason": printable(s.reason)} for s in a.skipped]
    return {
        "settings": settings,
        "skipped": skipped,
        "interactions": [_interaction(i) for i in a.interactions],
        "variance": [_variance(v) for v in a.variances],
    }


def _interaction(i: Interaction) -> dict:
    return {
        "factors": list(i.factors),
        "first": i.first,
        "second": i.second,
        "both": i.both,
        "changes": i.changes,
        "tau": {name: t.agreement.tau for name, t in i.taus.items()},
        "tau_ci": {name: t.interval and list(t.interval) for name, t in i.taus.items()},
        "predicted_tau": i.predicted_tau.agreement.tau,
        "predicted_tau_ci": i.predicted_tau.interval and list(i.predicted_tau.interval),
        "bias": i.bias[0],
        "bias_ci": i.bias[1] and list(i.bias[1]),
        "rmse": i.rmse[0],
        "rmse_ci": i.rmse[1] and list(i.rmse[1]),
        "seeds_rmse": i.seeds_rmse,
        "models": [{"vfm": vfm, **row} for vfm, row in i.scores.to_dict("index").items()],
    }


def _variance(v: Variance) -> dict:
    shares = {
        " x ".join(row.term) or "seeds": {
            "share": row.share,
            "ci": None if row.low is None else [row.low, row.high],
            "p_value": row.p_value,
        }
        for row in v.shares.itertuples()
    }
    names = dict(zip(("first", "second"), v.factors, strict=True))
    return {**names, "settings": list(v.settings), "vfms": list(v.vfms), "shares": shares}


def _models_csv(a: Analysis) -> str:
    """One row per setting and model, with the setting's tau repeated."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    top = ("baseline", "n", "tau", "p_value", "tau_low", "tau_high", "time_ratio")
    top += ("trainable_params",)
    columns = ("vfm", "miou_mean", "miou_std", "seeds", "rank", "baseline_rank")
    writer.writerow(("setting", *top, *columns))
    for name, setting in as_dict(a)["settings"].items():
        low, high = setting["tau_ci"] or (None, None)
        setting |= {"tau_low": low, "tau_high": high}
        for model in setting["models"]:
            values = [name, *(setting[k] for k in top), *(model[k] for k in columns)]
            writer.writerow(map(_cell, values))
    return out.getvalue()


def _cell(value):
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return to_cell(value) if isinstance(value, str) else value


def _number(value) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _tabulate(table: Table, labels: list[str], rows: list[list[str]], form: str) -> str:
    align = ["right" if column.numeric else "left" for column in table.columns]
    return tabulate(rows, labels, tablefmt=form, disable_numparse=True, colalign=align)


def _wrapped(words: str) -> str:
    return textwrap.fill(printable(words), 100, break_on_hyphens=False)


def _md(words: str) -> str:
    words = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(words).replace("&", "&amp;"))
    return _MARKDOWN.sub(r"\\\1", words)


_TEX = {
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "τ": "$\\tau$",
    "×": "$\\times$",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
} | {c: f"\\{c}" for c in "#$%&_"}


def _tex(words: str) -> str:
    return "".join(_TEX.get(c, c) for c in printable(words))

"""A folder with the whole report: page, plots and every format."""

import hashlib
import re
from pathlib import Path

from vfm_ss.files import write_atomically
from vfm_ss.ranking.analysis import Analysis
from vfm_ss.report.figures import write_figures
from vfm_ss.report.formats import render, table_csv
from vfm_ss.report.page import page
from vfm_ss.report.tables import all_tables

_FORMATS = {"text": "ranking.txt", "md": "ranking.md", "csv": "ranking.csv"}
_FORMATS |= {"json": "ranking.json", "latex": "ranking.tex"}


def write_report(a: Analysis, folder: str | Path, target: str) -> Path:
    """Write the report.

    Args:
        a: The analysis.
        folder: Where to write; made if missing. Files of an earlier report are replaced, each as a
            whole: half a table would look like one of fewer models.
        target: Setting whose ranking is to be predicted.

    Returns:
        The page, ``report.html``.
    """
    folder = Path(folder)
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for form, name in _FORMATS.items():
        _write(folder / name, render(a, form, target))
    for table in all_tables(a, target):
        _write(folder / "tables" / f"{file_name(table.key)}.csv", table_csv(table))
    write_figures(a, folder / "figures", target, file_name)
    _write(folder / "report.html", page(a, folder, target))
    return folder / "report.html"


def file_name(key: str) -> str:
    """Return a harmless file name for a table or figure; a setting may be called anything."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", key)[:100]
    return name if name == key else f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _write(path: Path, content: str) -> None:
    write_atomically(path, content.encode("utf-8", errors="backslashreplace"))

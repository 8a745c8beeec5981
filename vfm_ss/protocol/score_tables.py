"""Numbers from elsewhere, as CSV: results of other runs, and scores to compare rankings with."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfm_ss.protocol import kinds as k
from vfm_ss.protocol.runs import Run, Skipped
from vfm_ss.text import from_cell

#: Table 1 of the paper (arXiv 2404.12172) as printed: what others published of its ten VFMs, as
#: ViT-B and at their highest pretraining image size. A row per number.
PAPER_TABLE = Path(__file__).with_name("paper_table1.csv")

_NAMES = ("vfm", "setting")
_MAX_BYTES = 2**26


def read_results(path: str | Path) -> tuple[list[Run], list[Skipped]]:
    """Read results with the columns ``vfm``, ``setting``, ``miou`` and, if known, ``seed``.

    Args:
        path: A CSV file with a header. mIoU is in percent; a setting may have any name.

    Returns:
        The runs, and every row that was not used.

    Raises:
        ValueError: If the file cannot be read or lacks a column.
    """
    runs, skipped = [], []
    for where, row in _rows(path, ("vfm", "setting", "miou")):
        try:
            vfm, setting = (_checked(row, column, row[column], k.NAME) for column in _NAMES)
            miou = _checked(row, "miou", _number(row["miou"]), k.PERCENT)
            seed = row.get("seed") or None
            if seed is not None:
                number = int(seed) if re.fullmatch("[0-9]{1,19}", seed) else None
                seed = _checked(row, "seed", number, k.COUNT)
            runs.append(Run(setting, vfm, seed, miou, where))
        except ValueError as error:
            skipped.append(Skipped(where, str(error)))
    return runs, skipped


def read_outside(path: str | Path) -> tuple[dict[str, dict[str, float]], list[Skipped]]:
    """Read scores of the VFMs from outside the benchmark, for instance ImageNet accuracy.

    Args:
        path: A CSV file with a column ``vfm``; every other column is one score, higher is better.
            An empty cell is a gap. ``'paper'`` stands for `PAPER_TABLE`, whose scores of different
            data sets, protocols and numbers of tokens are scores of their own; those of one VFM
            alone, with which nothing can be compared, are left out.

    Returns:
        ``{score: {vfm: value}}``, and every cell that was not used.

    Raises:
        ValueError: If the file cannot be read, lacks the column or holds no score.
    """
    if path == "paper":
        return _paper_scores(), []
    scores, skipped = {}, []
    for where, row in _rows(path, ("vfm",)):
        try:
            _checked(row, "vfm", row["vfm"], k.NAME)
        except ValueError as error:
            skipped.append(Skipped(where, str(error)))
            continue
        for column, text in row.items():
            if column == "vfm" or not text:
                continue
            try:
                value = _checked(row, column, _number(text), k.FINITE)
            except ValueError as error:
                skipped.append(Skipped(where, str(error)))
                continue
            if row["vfm"] in scores.setdefault(column, {}):
                skipped.append(Skipped(where, f"{row['vfm']!r} again; its first {column} counts"))
            else:
                scores[column][row["vfm"]] = value
    if not any(scores.values()):
        raise ValueError(f"{path}: holds no score: expected a column vfm and one per score")
    return {column: values for column, values in scores.items() if values}, skipped


def _paper_scores() -> dict[str, dict[str, float]]:
    scores = {}
    for _, row in _rows(PAPER_TABLE, ("vfm", "value")):
        name = "{dataset} {protocol}, {metric}, {tokens} tokens (paper, Table 1)".format(**row)
        scores.setdefault(name, {})[row["vfm"]] = float(row["value"])
    return {name: values for name, values in scores.items() if len(values) > 1}


def _rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Yield ('file line N', row with stripped values)."""
    try:
        with open(path, "rb") as file:  # a pipe is fine here: somebody has named it
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"too big, expected at most {_MAX_BYTES} bytes")
        table = io.StringIO(data.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(table, restkey="", restval="", strict=True)
        names = [from_cell(name.strip()) for name in reader.fieldnames or ()]
        missing = [column for column in columns if column not in names]
        if missing:
            raise ValueError(
                f"has no column {missing[0]!r}; found {', '.join(names) or 'no header'}"
            )
        twice = [name for name in names if name and names.count(name) > 1]
        if twice:
            raise ValueError(f"has the column {twice[0]!r} twice")
        reader.fieldnames = names
        for row in reader:
            row.pop("", None)
            yield (
                f"{path} line {reader.line_num}",
                {c: from_cell(v.strip()) for c, v in row.items()},
            )
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: {reason}") from None


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)  # Python reads 4_7 as 47
    except ValueError:
        return None


def _checked(row: dict, column: str, value: Any, kind: k.Kind) -> Any:
    if not kind.accepts(value):
        raise ValueError(f"{column} is {k.short(row[column])}, expected {kind.expected}")
    return value

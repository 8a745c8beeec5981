"""Numbers from elsewhere, as CSV: results of other runs, and scores to compare rankings with."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from vfm_ss.protocol.runs import Run, Skipped


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
            miou = _number(row, "miou")
            if not 0 <= miou <= 100:
                raise ValueError(f"miou is {miou}, expected percent from 0 to 100")
            seed = row.get("seed")
            if seed and not seed.isdecimal():
                raise ValueError(f"seed is {seed!r}, expected an integer or nothing")
            for column in ("vfm", "setting"):
                if not row[column] or not row[column].isprintable():
                    raise ValueError(f"{column} is {row[column]!r}, expected a name")
            runs.append(Run(row["setting"], row["vfm"], int(seed) if seed else None, miou, where))
        except ValueError as error:
            skipped.append(Skipped(where, str(error)))
    return runs, skipped


def read_outside(path: str | Path) -> tuple[dict[str, dict[str, float]], list[Skipped]]:
    """Read scores of the VFMs from outside the benchmark, for instance ImageNet accuracy.

    Args:
        path: A CSV file with a column ``vfm``; every other column is one score, higher is better.
            An empty cell is a gap.

    Returns:
        ``{score: {vfm: value}}``, and every cell that was not used.

    Raises:
        ValueError: If the file cannot be read, lacks the column or holds no score.
    """
    scores, skipped = {}, []
    for where, row in _rows(path, ("vfm",)):
        for column, text in row.items():
            if column == "vfm" or not text:
                continue
            try:
                value = _number(row, column)
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


def _rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Yield ('file line N', row with stripped values)."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="", strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in names]
            if missing:
                raise ValueError(
                    f"has no column {missing[0]!r}; found {', '.join(names) or 'no header'}"
                )
            reader.fieldnames = names
            for row in reader:
                row.pop("", None)
                yield f"{path} line {reader.line_num}", {k: v.strip() for k, v in row.items()}
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: {reason}") from None


def _number(row: dict, column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} is {row[column]!r}, expected a number")
    return value

"""Tables as data, and how their values read; every output format renders these."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from vfm_ss.protocol.settings import SETTINGS
from vfm_ss.text import GAP


class Value(NamedTuple):
    """A value that comes from runs: those of ``setting`` and, if given, of one ``vfm``.

    People read it with its ``spread``, a standard deviation, behind it; files hold the value.
    """

    value: object
    setting: str
    vfm: str | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Column:
    """A column: its key in files, its label for people, and how values are shown."""

    key: str
    label: str
    show: Callable[[object], str] = str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: Name in files and links.
        title: Heading.
        columns: Its columns.
        rows: Raw values, None for a gap; `Value` where they come from runs.
        note: What a reader has to know, or empty.
    """

    key: str
    title: str
    columns: list[Column]
    rows: list[list]
    note: str = ""

    def shown(self) -> list[list[str]]:
        """Return the rows as people read them."""
        return [
            [show(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    def without_empty(self, *keys: str) -> "Table":
        """Drop those of these columns that hold nothing but gaps."""
        empty = {
            i
            for i, column in enumerate(self.columns)
            if column.key in keys and all(raw(row[i]) in (None, "") for row in self.rows)
        }

        def keep(items: list) -> list:
            return [item for i, item in enumerate(items) if i not in empty]

        rows = [keep(row) for row in self.rows]
        return replace(self, columns=keep(self.columns), rows=rows)


def show(cell, column: Column) -> str:
    """Return a cell as people read it; a gap is a dash."""
    value, spread = raw(cell), getattr(cell, "spread", None)
    if value is None:
        return GAP
    return column.show(value) + ("" if spread is None else f" ± {column.show(spread)}")


def raw(cell):
    """Return a cell's value without its origin; NaN is a gap."""
    value = cell.value if isinstance(cell, Value) else cell
    return None if isinstance(value, float) and math.isnan(value) else value


def title(setting: str) -> str:
    """Return a setting's name for people."""
    return SETTINGS[setting].title if setting in SETTINGS else setting


def digits(n: int, sign: bool = False) -> Callable[[float], str]:
    """Return a formatter for ``n`` decimals that writes a proper minus."""

    def formatted(value: float) -> str:
        text = f"{value:{'+' if sign else ''},.{n}f}"
        zero = not any(c in "123456789" for c in text)
        return text.lstrip("+-") if zero else text.replace("-", "−")

    return formatted


def p_value(value: float) -> str:
    """Format a p-value."""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def certainty(share: float) -> str:
    """Format how often an order held."""
    return ">99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def percent(share: float) -> str:
    """Format a share."""
    return f"{digits(1)(100 * share)} %"


def duration(seconds: float) -> str:
    """Format seconds as a person would."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def millions(count: float) -> str:
    """Format a number of parameters."""
    return f"{digits(1)(count / 1e6)} M"


def interval(limits: tuple[float, float]) -> str:
    """Format a confidence interval."""
    return f"{digits(2)(limits[0])} to {digits(2)(limits[1])}"


def text(key: str, label: str) -> Column:
    """Return a column of words."""
    return Column(key, label, numeric=False)


def of_setting(key: str, label: str) -> Column:
    """Return a column of settings: their keys in files, their titles for people."""
    return Column(key, label, title, numeric=False)

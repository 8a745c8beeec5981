"""What a value from a file may be: a record's or journal's field, a number of a log or a table.

Each dataclass of them says the kinds of its fields, see `records.Record`; `check` holds them.
"""

import re
import reprlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from functools import lru_cache
from typing import NamedTuple

_MOST = sys.float_info.max
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 57, 57, 57


class Kind(NamedTuple):
    """What a field may hold."""

    accepts: Callable[[object], bool]
    expected: str


def short(value) -> str:
    """Show a value in an error, cut where it is long."""
    text = _SHORT.repr(value)  # of a part only, where it is large
    return text if len(text) <= 60 else text[:57] + "..."


def _is_int(value, low: int = 0) -> bool:
    return type(value) is int and low <= value < 2**63  # what tables and plots can hold


def _is_number(value, low: float = 0.0, high: float = _MOST) -> bool:
    # NaN is in no range; integers, which have no end in JSON, are compared exactly.
    return type(value) in (int, float) and low <= value <= high


def _is_name(value) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


_is_key = lru_cache(2**14)(_is_name)  # of an object: a string, and the same in many files


def _are_percents(values: Iterable) -> bool:
    known = [value for value in values if value is not None]
    if not set(map(type, known)) <= {int, float}:
        return False
    # Half the time of a generator; a float beside a float is compared quickest.
    return all([0.0 <= v <= 100.0 for v in known])  # noqa: C419


def _is_percent(value) -> bool:
    return value is not None and _are_percents((value,))


def _is_ious(value) -> bool:
    return isinstance(value, dict) and all(map(_is_key, value)) and _are_percents(value.values())


def _is_history(value) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(row, (list, tuple)) and len(row) == 2 for row in value)
        and all(_is_int(step) for step, _ in value)
        and _are_percents(score for _, score in value)
    )


def _is_evaluations(value) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name)
        and isinstance(found, dict)
        and (found.get("miou") is None or _is_percent(found["miou"]))
        and (found.get("iou") is None or _is_ious(found["iou"]))
        and (found.get("history") is None or _is_history(found["history"]))
        and (found.get("config") is None or _is_values(found["config"]))
        for name, found in value.items()
    )


def _is_versions(value) -> bool:
    return isinstance(value, dict) and all(_is_name(k) and _is_name(v) for k, v in value.items())


def _is_lines(value) -> bool:
    return isinstance(value, list) and all(
        isinstance(line, str) and 0 < len(line) <= 2000 and line.isprintable() for line in value
    )


def _is_checksum(value) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_size(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_int(v, 1) for v in value)


def _is_values(value) -> bool:
    return isinstance(value, dict) and all(map(_is_plain, value.values()))


def _is_plain(value, depth: int = 8) -> bool:
    if value is None or isinstance(value, (str, bool)):
        return True
    if isinstance(value, (list, dict)) and depth > 0:
        parts = value.values() if isinstance(value, dict) else value
        return all(_is_plain(part, depth - 1) for part in parts)
    return _is_number(value, -_MOST)


def parts_of(**parts: Kind) -> Kind:
    """Return the kind of an object with these parts, each of which may be null."""

    def accepts(value) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() == parts.keys()
            and all(v is None or parts[k].accepts(v) for k, v in value.items())
        )

    inner = "; ".join(f"{name}: {kind.expected}" for name, kind in parts.items())
    return Kind(accepts, f"an object {{{inner}}}")


#: Schema of a field that records of all schemas may lack.
ADDED_LATER = 2**31

NAME = Kind(_is_name, "a non-empty printable string")
COUNT = Kind(_is_int, "an integer of 64 bits, 0 or more")
POSITIVE = Kind(lambda v: _is_int(v, 1), "an integer of 64 bits, 1 or more")
PERCENT = Kind(_is_percent, "a number from 0 to 100 (percent)")
MORE_THAN_0 = Kind(lambda v: _is_number(v) and v > 0, "a number above 0")
BOOL = Kind(lambda v: type(v) is bool, "true or false")
CHECKSUM = Kind(_is_checksum, "a SHA-256 checksum, 64 hexadecimal digits")
IOUS = Kind(_is_ious, "an object {class: percent or null}")
HISTORY = Kind(_is_history, "a list of [step, percent or null]")
EVALUATIONS = Kind(
    _is_evaluations,
    "an object {data set: {miou: percent or null, iou: {class: percent or null} or null, "
    "history: list of [step, percent or null], config: {name: value} or null}}",
)
VERSIONS = Kind(_is_versions, "an object {package: version}")
LINES = Kind(_is_lines, "a list of printable strings")
SIZE = Kind(_is_size, "a list [height, width] in pixels")
VALUES = Kind(_is_values, "an object {name: value}, nested 8 times at most")
NUMBER = Kind(_is_number, "a number, 0 or more")
FINITE = Kind(lambda v: _is_number(v, -_MOST), "a number")
TEXT = Kind(lambda v: isinstance(v, str), "a string")
LIST = Kind(lambda v: isinstance(v, list), "a list")
FRACTION = Kind(lambda v: _is_number(v, 0, 1) and v > 0, "a number above 0, at most 1")


def one_of(values: tuple) -> Kind:
    """Return the kind of a field that holds one of some values, of the same type."""
    kinds = {type(value) for value in values}
    return Kind(lambda v: type(v) in kinds and v in values, f"one of {', '.join(map(str, values))}")


def required(kind: Kind):
    """Return a field without a default."""
    return field(metadata={"kind": kind})


def known(kind: Kind, schema: int = 1):
    """Return a field that is None where it is not known; ``schema`` is the first that has it."""
    null = Kind(lambda v: v is None or kind.accepts(v), f"{kind.expected} or null")
    return field(default=None, metadata={"kind": null, "schema": schema})


def filled(make: Callable[[], object], kind: Kind, schema: int = 1):
    """Return a field that is never None."""
    return field(default_factory=make, metadata={"kind": kind, "schema": schema})


def check(data) -> None:
    """Check every field of a dataclass whose fields are made by the functions above.

    Raises:
        ValueError: If a value is not of its field's kind; the message names the field.
    """
    for name, kind in _kinds(type(data)):
        value = getattr(data, name)
        if not kind.accepts(value):
            raise ValueError(f"field {name!r} is {short(value)}, expected {kind.expected}")


@lru_cache
def _kinds(cls: type) -> list[tuple[str, Kind]]:
    return [(f.name, f.metadata["kind"]) for f in fields(cls)]

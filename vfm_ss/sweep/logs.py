"""What the end of a log says: how far a run is, and why it failed. Any bytes are read."""

import re
import stat
from pathlib import Path
from typing import NamedTuple

from vfm_ss.found_files import tail

#: What a run's processes print, in its folder.
LOG_NAME = "train.log"
_TAIL_BYTES = 2**17
_MAX_LINE = 500
_STEP = re.compile(rb"Iter\(train\) +\[ *(\d{1,12})/(\d{1,12})\]([^\n]*)")
_ETA = re.compile(rb"\beta: (?:(\d{1,6}) days?, )?(\d{1,2}):(\d\d):(\d\d)")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_EXCEPTION = re.compile(
    r"(\[rank\d+\]: *)?[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)|train\.py: error: "
)


class Progress(NamedTuple):
    """Steps done, steps of the whole run, seconds to go (None if the log does not say)."""

    step: int
    max_steps: int
    eta_seconds: int | None


def progress(log: Path) -> Progress | None:
    """Return what mmengine's last training line in a log says, or None."""
    found = None
    for found in _STEP.finditer(tail(log, _TAIL_BYTES)):  # noqa: B007  the last one
        pass
    if found is None:
        return None
    eta = _ETA.search(found[3])
    seconds = None
    if eta is not None:
        days, hours, minutes, rest = (int(part or 0) for part in eta.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    return Progress(int(found[1]), int(found[2]), seconds)


def last_error(log: Path, start: int = 0) -> str:
    """Return the line of a log that says best what went wrong.

    That is the last line that names an exception, other than torchrun's summary of its children,
    or else the last line.

    Args:
        log: The log.
        start: Byte at which the failed attempt starts.

    Returns:
        One line without control sequences, or ''.
    """
    text = _ESCAPE.sub("", tail(log, _TAIL_BYTES, start).decode("utf-8", "replace"))
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    for line in reversed(lines):
        if _EXCEPTION.match(line) and "ChildFailedError" not in line:
            return shorten(line)
    return shorten(lines[-1]) if lines else ""


def newest_log(folder: Path) -> Path | None:
    """Return the log in a run's folder that was written last: ours, or one of mmengine's."""
    found = []
    for path in (folder / LOG_NAME, *folder.glob("*/*.log")):
        try:
            info = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode):
            found.append((info.st_mtime, path.name == LOG_NAME, path))
    return max(found)[2] if found else None


def shorten(line: str) -> str:
    """Cut a long line."""
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 3] + "..."

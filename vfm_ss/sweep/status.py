"""How far every run is, read from its folder; nothing found there is executed."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from vfm_ss.protocol.records import RECORD_NAME, Record, read_record
from vfm_ss.report.table import GAP, printable
from vfm_ss.sweep.journal import JOURNAL_NAME, Journal, read_journal
from vfm_ss.sweep.lock import LOCK_NAME, RunLock
from vfm_ss.sweep.logs import newest_log, progress

#: In the order of the table. ``stopped``: begun, but nobody trains it; ``missing``: not begun.
STATES = ("running", "failed", "stopped", "missing", "done")
#: Exit statuses; 2 is that of a wrong command line.
ALL_DONE, FAILED, NOT_YET = 0, 1, 3
#: A run that no sweep looks after counts as running while its log is younger than this.
_UNATTENDED_SECONDS = 300.0


@dataclass(frozen=True)
class RunState:
    """How far one run is.

    Attributes:
        name: Name of its config.
        seed: Random seed; None if not known.
        path: Its folder.
        state: One of ``STATES``.
        step: Optimiser steps done; None if not known.
        max_steps: Optimiser steps of the whole run; None if not known.
        eta_seconds: Seconds to go, as the log says; None unless running.
        miou: Mean IoU of the last validation, in percent; None before it.
        attempts: How often its training was started by a sweep.
        error: Why it failed, or why its last attempt did; None without a failure.
        log: The log to look into; None if there is none.
        note: What else one should know, or ''.
    """

    name: str
    seed: int | None
    path: str
    state: str
    step: int | None = None
    max_steps: int | None = None
    eta_seconds: int | None = None
    miou: float | None = None
    attempts: int = 0
    error: str | None = None
    log: str | None = None
    note: str = ""


def look(folder: str | Path, name: str | None = None, seed: int | None = None) -> RunState:
    """Find out how far a run is.

    Args:
        folder: Its folder; need not exist.
        name: Name of its config, if its files do not say.
        seed: Its seed, if its files do not say.
    """
    folder = Path(folder)
    notes: list[str] = []
    record = _or_note(_record, folder, notes)
    journal = _or_note(read_journal, folder, notes)
    log = newest_log(folder)
    done = progress(log) if log else None
    state = _state(folder, record, journal, log)
    last = journal.attempts[-1] if journal and journal.attempts else None
    if state == "missing" and journal and journal.job:
        notes.append(f"submitted as Slurm job {journal.job}")
    error = journal.error if journal and state != "done" else None
    if error is None and last and state != "done":
        error = next((a.error for a in reversed(journal.attempts) if a.error), None)
    return RunState(
        name=name or (journal.name if journal else _named(folder, record)),
        seed=seed if seed is not None else (journal.seed if journal else _seed(folder, record)),
        path=str(folder),
        state=state,
        step=_first(record and state == "done" and record.step, done and done.step,
                    record and record.step),
        max_steps=_first(done and done.max_steps, record and record.max_steps),
        eta_seconds=done.eta_seconds if done and state == "running" else None,
        miou=record.miou if record else None,
        attempts=len(journal.attempts) if journal else 0,
        error=error,
        log=str(log) if log else None,
        note="; ".join(notes),
    )  # fmt: skip


def discover(roots: Iterable[str | Path]) -> list[RunState]:
    """Look at every run below some folders.

    Raises:
        ValueError: If a folder does not exist.
    """
    found = {}
    for root in map(Path, roots):
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder")
        for folder, subfolders, files in os.walk(root, followlinks=True):
            key = os.path.realpath(folder)
            if key in found:  # reached again, or a loop
                subfolders.clear()
            elif _is_run(folder, subfolders, files):
                subfolders.clear()
                found[key] = look(folder)
            else:
                found[key] = None
                subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
    return [state for state in found.values() if state is not None]


def merge(planned: Iterable[RunState], found: Iterable[RunState]) -> list[RunState]:
    """Join runs that were asked for with those that were found, each folder once."""
    states = {os.path.realpath(state.path): state for state in planned}
    for state in found:
        states.setdefault(os.path.realpath(state.path), state)
    return list(states.values())


def exit_status(states: Iterable[RunState]) -> int:
    """Return 0 if all runs are done, 1 if one has failed, 3 if some are still to do."""
    kinds = {state.state for state in states}
    if "failed" in kinds:
        return FAILED
    return ALL_DONE if kinds == {"done"} else NOT_YET


def table(states: Iterable[RunState]) -> str:
    """Return the table as text, failed runs with their error and log below it."""
    states = sorted(states, key=lambda s: (STATES.index(s.state), s.name, s.seed or 0))
    rows = [
        [
            s.name,
            GAP if s.seed is None else s.seed,
            s.state,
            _steps(s),
            GAP if s.eta_seconds is None else duration(s.eta_seconds),
            GAP if s.miou is None else f"{s.miou:.2f}",
            s.attempts or GAP,
        ]
        for s in states
    ]
    head = ["run", "seed", "state", "step", "ETA", "mIoU", "attempts"]
    align = ("left", "right", "left", "right", "right", "right", "right")
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    lines = [tabulate(cells, head, "simple", colalign=align, disable_numparse=True)] if rows else []
    lines += ["", *_remarks(states)] if any(s.error or s.note for s in states) else []
    return "\n".join([*lines, "", summary(states)]).lstrip("\n") + "\n"


def _remarks(states: list[RunState]) -> list[str]:
    lines = []
    for s in states:
        who = f"{s.name} seed {GAP if s.seed is None else s.seed}"
        if s.error:
            verb = "failed" if s.state == "failed" else f"{s.state}, but failed before"
            lines.append(printable(f"{who} {verb}: {s.error}"))
            lines.append(printable(f"    log: {s.log or 'none'}"))
        if s.note:
            lines.append(printable(f"{who}: {s.note}"))
    return lines


def summary(states: Iterable[RunState]) -> str:
    """Count the states, in one line."""
    count = Counter(state.state for state in states)
    total = sum(count.values())
    parts = [f"{count[kind]} {kind}" for kind in reversed(STATES) if count[kind]]
    return f"{total} {'run' if total == 1 else 'runs'}: {', '.join(parts) or 'none found'}"


def as_json(states: Iterable[RunState]) -> str:
    """Return the states as JSON: ``counts`` and ``runs``."""
    states = list(states)
    count = Counter(state.state for state in states)
    data = {
        "counts": {kind: count[kind] for kind in reversed(STATES)},
        "runs": [asdict(state) for state in states],
    }
    return json.dumps(data, indent=1) + "\n"


def duration(seconds: float) -> str:
    """Write seconds as ``1d 02:03:04``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hours:02}:{minutes:02}:{rest:02}"


def _state(folder: Path, record: Record | None, journal: Journal | None, log: Path | None) -> str:
    if record is not None and record.status == "finished":
        return "done"
    if RunLock(folder).holder() is not None:
        return "running"
    if journal is not None and journal.error is not None:
        return "failed"
    if journal is None and log is not None:
        return "running" if time.time() - log.stat().st_mtime < _UNATTENDED_SECONDS else "stopped"
    begun = record is not None or log is not None or (journal and journal.attempts)
    return "stopped" if begun else "missing"


def _record(folder: Path) -> Record | None:
    path = folder / RECORD_NAME
    return read_record(path) if os.path.lexists(path) else None


def _or_note(read, folder: Path, notes: list[str]):
    try:
        return read(folder)
    except ValueError as error:
        notes.append(str(error))
        return None


def _is_run(folder: str, subfolders: list[str], files: list[str]) -> bool:
    entries = {*subfolders, *files}
    return not entries.isdisjoint((RECORD_NAME, JOURNAL_NAME, LOCK_NAME)) or any(
        os.path.isdir(os.path.join(folder, name, "vis_data")) for name in subfolders
    )


def _named(folder: Path, record: Record | None) -> str:
    if record is not None:
        return record.name
    path = folder.absolute()
    return path.parent.name if re.fullmatch(r"seed\d+", path.name) else path.name


def _seed(folder: Path, record: Record | None) -> int | None:
    if record is not None:
        return record.seed
    match = re.fullmatch(r"seed(\d{1,9})", folder.absolute().name)
    return int(match[1]) if match else None


def _steps(state: RunState) -> str:
    if state.step is None:
        return GAP
    return f"{state.step}/{GAP if state.max_steps is None else state.max_steps}"


def _first(*values):
    return next((v for v in values if v is not None and v is not False), None)

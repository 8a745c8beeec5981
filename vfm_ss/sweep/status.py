"""How far every run is, read from its folder; nothing found there is executed."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from vfm_ss.found_files import folders
from vfm_ss.protocol.records import RECORD_NAME, Record, read_record
from vfm_ss.run_lock import RUN_LOCK, run_holder
from vfm_ss.sweep.identity import HOLDS_OTHER, Asked, difference, is_compared, lacking
from vfm_ss.sweep.journal import JOURNAL_NAME, Journal, read_journal
from vfm_ss.sweep.logs import newest_log, progress
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.text import GAP, printable

#: In the order of the table. ``other``: the folder holds another run than the one that was asked
#: for; ``stopped``: begun, but nobody trains it; ``missing``: not begun.
STATES = ("running", "other", "failed", "stopped", "missing", "done")
#: A folder that holds one of these, or what mmengine writes, is a run's.
_MARKS = {RECORD_NAME, JOURNAL_NAME, RUN_LOCK}


@dataclass(frozen=True)
class RunState:
    """How far one run is; None is what its files do not say."""

    name: str  # of its config
    seed: int | None
    path: str
    state: str  # one of STATES
    step: int | None = None  # optimiser steps done
    max_steps: int | None = None
    eta_seconds: int | None = None  # as the log says; None unless running
    miou: float | None = None  # of the last validation, in percent
    attempts: int = 0  # how often a sweep started its training
    error: str | None = None  # why it failed, or why its last attempt did
    log: str | None = None  # to look into
    note: str = ""  # what else one should know

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.name} seed {GAP if self.seed is None else self.seed}"


def look(
    folder: str | Path,
    name: str | None = None,
    seed: int | None = None,
    asked: Asked | None = None,
) -> RunState:
    """Find out how far a run is.

    Args:
        folder: Its folder; need not exist.
        name: Name of its config, if its files do not say.
        seed: Its seed, if its files do not say.
        asked: What it is to train. Only a run of the same configuration is done; without it, one
            of the configuration that its last sweep was given.
    """
    folder = Path(folder)
    notes: list[str] = []
    record = _or_note(_record, folder, notes)
    journal = _or_note(read_journal, folder, notes)
    log = newest_log(folder)
    logged = progress(log) if log else None
    done = record is not None and record.status == "finished"
    other = _other(record, journal, asked) if done else None
    missing = lacking(record, asked) if done and asked is not None and not other else []
    state = "done" if done and not missing else _state(folder, record, journal, log)
    if other:
        state = "other"
    elif missing:
        notes.append(f"trained; still to be evaluated on {', '.join(missing)}")
    elif state == "done" and asked is not None and not is_compared(record):
        notes.append("its record does not say its configuration, which was not compared")
    if state == "missing" and journal and journal.job:
        notes.append(f"submitted as Slurm job {journal.job}")
    errors = [other] if other else []
    if journal:
        errors += [journal.error, *(a.error for a in reversed(journal.attempts))]
    seeded = re.fullmatch(r"seed(\d{1,9})", folder.absolute().name)
    steps = [source for source in (logged, record) if source]
    if name is None:
        own_name = folder.absolute().parent.name if seeded else folder.absolute().name
        name = (journal or record).name if journal or record else own_name
    if seed is None:
        own_seed = int(seeded[1]) if seeded else None
        seed = (journal or record).seed if journal or record else own_seed
    return RunState(
        name=name,
        seed=seed,
        path=str(folder),
        state=state,
        # The log is written more often than the record, but cannot say that all is done.
        step=next((s.step for s in (reversed(steps) if state == "done" else steps)), None),
        max_steps=next((s.max_steps for s in steps if s.max_steps), None),
        eta_seconds=logged.eta_seconds if logged and state == "running" else None,
        miou=record.miou if record else None,
        attempts=len(journal.attempts) if journal else 0,
        error=next(filter(None, errors), None) if state != "done" else None,
        log=str(log) if log else None,
        note="; ".join(notes),
    )


def finished_before(run: PlannedRun, found: RunState) -> str:
    """Say that a run is done already, and what of it could not be compared."""
    return f"finished before: {run}" + (f" ({found.note})" if found.note else "")


def discover(
    roots: Iterable[str | Path], unreadable: Callable[[OSError], None] = lambda error: None
) -> list[RunState]:
    """Look at every run below some folders.

    Args:
        roots: The folders.
        unreadable: Called with what cannot be listed.

    Raises:
        ValueError: If a folder does not exist.
    """
    found, seen = [], set()
    for root in map(Path, roots):
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder")
        for folder, subfolders, files in folders(root, unreadable, seen):
            is_run = not _MARKS.isdisjoint([*files, *subfolders]) or any(
                os.path.isdir(os.path.join(folder, name, "vis_data")) for name in subfolders
            )
            if is_run:
                found.append(look(folder))
            subfolders[:] = [s for s in subfolders if not (is_run or s.startswith("."))]
    return found


def exit_status(states: Iterable[RunState]) -> int:
    """Return 0 if all runs are done, 1 if one has failed, 3 if some are still to do, or none.

    A folder that holds another run than the one asked for is a failure, too.
    """
    kinds = {state.state for state in states}
    return 1 if kinds & {"failed", "other"} else 0 if kinds == {"done"} else 3


def table(states: Iterable[RunState]) -> str:
    """Return the table as text, failed runs with their error and log below it."""
    states = sorted(states, key=lambda s: (STATES.index(s.state), s.name, s.seed or 0))
    head = ["run", "seed", "state", "step", "ETA", "mIoU", "attempts"]
    align = ("left", "right", "left", "right", "right", "right", "right")
    rows = [
        [
            s.name,
            s.seed,
            s.state,
            None if s.step is None else f"{s.step}/{GAP if s.max_steps is None else s.max_steps}",
            None if s.eta_seconds is None else duration(s.eta_seconds),
            None if s.miou is None else f"{s.miou:.2f}",
            s.attempts or None,
        ]
        for s in states
    ]
    cells = [[GAP if cell is None else printable(str(cell)) for cell in row] for row in rows]
    lines = [tabulate(cells, head, "simple", colalign=align, disable_numparse=True)] if rows else []
    remarks = [printable(line) for state in states for line in _remarks(state)]
    lines += ["", *remarks] if remarks else []
    return "\n".join([*lines, "", summary(states)]).lstrip("\n") + "\n"


def _remarks(s: RunState) -> list[str]:
    lines = [f"{s}: {s.note}"] if s.note else []
    if s.state == "other":
        lines = [f"{s}: {s.error}", *lines]
    elif s.error:
        verb = "failed" if s.state == "failed" else f"{s.state}, but failed before"
        lines = [f"{s} {verb}: {s.error}", f"    log: {s.log or 'none'}", *lines]
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
    counts = {kind: count[kind] for kind in reversed(STATES)}
    return json.dumps({"counts": counts, "runs": list(map(asdict, states))}, indent=1) + "\n"


def duration(seconds: float) -> str:
    """Write seconds as ``1d 02:03:04``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hours:02}:{minutes:02}:{rest:02}"


def _state(folder: Path, record: Record | None, journal: Journal | None, log: Path | None) -> str:
    """Return the state of a run that is not done."""
    if run_holder(folder) is not None:
        return "running"
    if journal is not None and journal.error is not None:
        return "failed"
    begun = record is not None or log is not None or (journal and journal.attempts)
    return "stopped" if begun else "missing"


def _other(record: Record, journal: Journal | None, asked: Asked | None) -> str | None:
    """Say how a finished run differs from the one that was asked for, where it does."""
    if asked is not None:
        other = difference(record, asked)
        return None if other is None else f"{HOLDS_OTHER}: {other}"
    hashes = {record.config_hash, journal.config_hash if journal else None}
    return None if len(hashes) < 2 or None in hashes else f"{HOLDS_OTHER} than its sweep was given"


def _record(folder: Path) -> Record | None:
    path = folder / RECORD_NAME
    return read_record(path) if os.path.lexists(path) else None


def finished_record(folder: str | Path) -> Record | None:
    """Return the record of a finished run; None where there is none that can be read."""
    try:
        record = _record(Path(folder))
    except ValueError:
        return None
    return record if record is not None and record.status == "finished" else None


def _or_note(read, folder: Path, notes: list[str]):
    try:
        return read(folder)
    except ValueError as error:
        notes.append(str(error))
        return None

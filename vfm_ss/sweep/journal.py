"""What sweeps did for one run: ``sweep.json`` beside the record, written by the lock's owner."""

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vfm_ss.protocol.records import read_json

JOURNAL_NAME = "sweep.json"
SCHEMA = 1
#: A ``stopped`` attempt was ended from outside (Ctrl-C, preemption); that is no failure.
RESULTS = ("running", "finished", "failed", "stopped")


@dataclass
class Attempt:
    """One start of a run's training.

    Attributes:
        sweep: Id of the sweep that started it.
        started: Seconds since the epoch.
        result: One of ``RESULTS``.
        machine: Where ``pid`` means something, see `lock.this_machine`.
        pid: Its process, which leads its process group; None before it starts.
        pid_start: When the process started, see `lock.process_start`.
        error: What went wrong, one line.
    """

    sweep: str
    started: float
    result: str = "running"
    machine: str | None = None
    pid: int | None = None
    pid_start: str | None = None
    error: str | None = None


@dataclass
class Journal:
    """The attempts at one run.

    Attributes:
        name: Name of the config.
        seed: Random seed.
        sweep: Id of the sweep that takes care of the run now.
        max_attempts: After so many failed attempts of one sweep, the run has failed.
        job: Slurm job that trains it or will, or None.
        error: Why the run has failed, None while it has not.
        attempts: All attempts, in order.
    """

    name: str
    seed: int
    sweep: str
    max_attempts: int
    job: str | None = None
    error: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    schema: int = SCHEMA

    def failed_attempts(self) -> int:
        """Count the failed attempts of the present sweep."""
        return sum(a.result == "failed" for a in self.attempts if a.sweep == self.sweep)

    def write(self, folder: str | Path) -> None:
        """Write it into a run's folder, as a whole or not at all."""
        path = Path(folder) / JOURNAL_NAME
        temp = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temp.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
            os.replace(temp, path)
        finally:
            temp.unlink(missing_ok=True)


def read_journal(folder: str | Path) -> Journal | None:
    """Read the journal of a run; None where there is none.

    Raises:
        ValueError: If the file is no journal; one line with the file and the field.
    """
    path = Path(folder) / JOURNAL_NAME
    if not os.path.lexists(path):
        return None
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not a journal of this version of tools/sweep.py; delete it")
    journal = _checked(Journal, _JOURNAL, data, path)
    journal.attempts = [_checked(Attempt, _ATTEMPT, item, path) for item in journal.attempts]
    return journal


_TEXT, _TEXT_OR_NULL = (str,), (str, type(None))
_ATTEMPT = {
    "sweep": _TEXT,
    "started": (int, float),
    "result": _TEXT,
    "machine": _TEXT_OR_NULL,
    "pid": (int, type(None)),
    "pid_start": _TEXT_OR_NULL,
    "error": _TEXT_OR_NULL,
}
_JOURNAL = {
    "name": _TEXT,
    "seed": (int,),
    "sweep": _TEXT,
    "max_attempts": (int,),
    "job": _TEXT_OR_NULL,
    "error": _TEXT_OR_NULL,
    "attempts": (list,),
}


def _checked(cls, types: dict[str, tuple], data, path: Path):
    values = {}
    for name, accepted in types.items():
        value = data.get(name) if isinstance(data, dict) else None
        if type(value) not in accepted:
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in accepted)
            raise ValueError(f"{path}: field {name!r} is not {expected}; delete the file")
        values[name] = value
    return cls(**values)

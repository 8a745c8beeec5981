"""What sweeps did for one run: ``sweep.json``, written by whoever holds the sweep's lock of it."""

# ruff: noqa: RUF009  the functions of `kinds` return fields
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vfm_ss.files import write_atomically
from vfm_ss.found_files import read_json
from vfm_ss.protocol import kinds as k
from vfm_ss.run_lock import SWEEP_LOCK, RunLock, RunLockedError

JOURNAL_NAME = "sweep.json"
_SCHEMA = 1


@dataclass
class Attempt:
    """One start of a run's training.

    ``result`` is ``running``, ``finished``, ``failed``, or ``stopped``: ended from outside (Ctrl-C,
    a time limit), which is no failure.
    """

    sweep: str = k.required(k.TEXT)  # id of the sweep that started it
    started: float = k.required(k.NUMBER)  # seconds since the epoch
    result: str = k.filled(lambda: "running", k.TEXT)
    pid: int | None = k.known(k.COUNT)  # leads its process group; None before it starts
    error: str | None = k.known(k.TEXT)  # one line


@dataclass
class Journal:
    """The attempts at one run."""

    name: str = k.required(k.TEXT)  # of the config
    seed: int = k.required(k.COUNT)
    job: str | None = k.known(k.TEXT)  # of Slurm, that trains it or will
    error: str | None = k.known(k.TEXT)  # why the run has failed, None while it has not
    attempts: list = k.filled(list, k.LIST)
    config_hash: str | None = k.known(k.CHECKSUM)  # of what was last asked for
    schema: int = k.filled(lambda: _SCHEMA, k.one_of((_SCHEMA,)))

    def failures(self, sweep: str) -> list[Attempt]:
        """Return the failed attempts of a sweep."""
        return [a for a in self.attempts if a.sweep == sweep and a.result == "failed"]

    def write(self, folder: str | Path) -> None:
        """Write it into a run's folder, as a whole or not at all."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_atomically(Path(folder, JOURNAL_NAME), text.encode())


def read_journal(folder: str | Path) -> Journal | None:
    """Read the journal of a run; None where there is none.

    Raises:
        ValueError: If the file is no journal; one line with the file and the field.
    """
    path = Path(folder) / JOURNAL_NAME
    if not os.path.lexists(path):
        return None
    journal = _checked(Journal, read_json(path), path)
    journal.attempts = [_checked(Attempt, item, path) for item in journal.attempts]
    return journal


def open_journal(folder: str | Path, name: str, seed: int) -> Journal:
    """Read the journal of a run to write it again; a new one where there is none, or damage."""
    try:
        return read_journal(folder) or Journal(name, seed)
    except ValueError:
        return Journal(name, seed)


def register(
    folder: Path,
    name: str,
    seed: int,
    job: str | None = None,
    error: str | None = None,
    config_hash: str | None = None,
) -> None:
    """Note that a run is planned, so that status knows, or that it waits as ``job`` or has failed.

    Whoever looks after the run already, writes its journal alone. ``config_hash`` says of which
    configuration it is; None where that is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder, SWEEP_LOCK)
    try:
        lock.acquire(0.2)
    except RunLockedError:
        return
    journal = open_journal(folder, name, seed)
    journal.job, journal.error, journal.config_hash = job, error, config_hash
    journal.write(folder)
    lock.release()


def _checked(cls, data, path: Path):
    if not isinstance(data, dict) or (cls is Journal and data.get("schema") != _SCHEMA):
        raise ValueError(f"{path}: not a journal of this version of vfm_ss; delete the file")
    found = cls(**{f.name: data.get(f.name) for f in fields(cls)})
    try:
        k.check(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete the file") from None
    return found

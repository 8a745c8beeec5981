"""Ending a training with all its processes, and noticing that it does nothing."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vfm_ss.sweep.journal import JOURNAL_NAME, read_journal
from vfm_ss.sweep.lock import LOCK_NAME, RunLock, process_start, this_machine

#: Seconds that a training has to end by itself after SIGTERM.
GRACE_SECONDS = 10.0
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have Linux end the training when the worker is killed; called between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def end_group(pid: int, ended: Callable[[], bool]) -> None:
    """End a process group: ask, then kill.

    Args:
        pid: Its leader.
        ended: Tells whether the leader has ended.
    """
    _signal_group(pid, signal.SIGTERM)
    end = time.monotonic() + GRACE_SECONDS
    while not ended() and time.monotonic() < end:
        time.sleep(0.05)
    _signal_group(pid, signal.SIGKILL)
    while not ended():
        time.sleep(0.05)


def _signal_group(pid: int, number: int) -> None:
    # Nobody is left, or, on macOS, only zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_run(folder: str | Path, sweep: str) -> None:
    """Kill this machine's worker of a sweep that still holds a run's lock, and its training."""
    lock = RunLock(folder)
    holder = lock.holder()
    if holder is None or holder.owner is None or holder.owner.machine != this_machine():
        return
    try:
        journal = read_journal(folder)
    except ValueError:  # damaged: no telling whose the worker is
        return
    if journal is None or journal.sweep != sweep or not journal.attempts:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder.owner.pid, signal.SIGKILL)
    attempt = journal.attempts[-1]
    if attempt.pid and process_start(attempt.pid) == attempt.pid_start:
        end_group(attempt.pid, lambda: process_start(attempt.pid) != attempt.pid_start)
    if lock.acquire() is None:
        lock.release()


def contents(folder: str, depth: int = 3) -> set[tuple[str, int, int]]:
    """List names, sizes and times of a run's files; our own do not count."""
    found = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if LOCK_NAME in entry.name or JOURNAL_NAME in entry.name:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found |= contents(entry.path, depth - 1) if depth > 1 else set()
                else:
                    info = entry.stat(follow_symlinks=False)
                    found.add((entry.path, info.st_size, info.st_mtime_ns))
    except OSError:  # deleted meanwhile
        pass
    return found

"""Who works on a run: the lock of its work dir, one for trainings by hand and for sweeps.

It is the kernel's (flock): it ends with the process that holds it, whoever killed it, and children
do not inherit it. Between hosts it needs a file system whose locks the hosts share: NFSv4, or
Lustre mounted with ``flock``. The file stays behind; that it exists says nothing.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import warnings
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from vfm_ss.errors import UsageError

#: Held by the main process of a training, in its work dir.
RUN_LOCK = "run.lock"
#: Held by a sweep that looks after a run, between the attempts to train it, too.
SWEEP_LOCK = "sweep.lock"
#: `holder` holds a lock for a moment, in which a training may start.
_LOOK_SECONDS = 1.0
_MAX_BYTES = 4096
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLockedError(UsageError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; None where its file does not say."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        """Name it in messages."""
        if self.pid is None:
            return "another process"
        return f"process {self.pid} on {self.host} since {self.since}"


class RunLock:
    """A lock of a run.

    Args:
        folder: The run's work dir, which must exist.
        name: ``RUN_LOCK`` or ``SWEEP_LOCK``.
    """

    def __init__(self, folder: str | Path, name: str = RUN_LOCK):
        self.path = Path(folder) / name
        self._lock: FileLock | None = None

    def acquire(self, seconds: float = _LOOK_SECONDS) -> None:
        """Take the lock.

        Args:
            seconds: How long to wait for it.

        Raises:
            RunLockedError: If another process holds it; one line that names the process.
            ValueError: If something that is no file stands in its place.
            OSError: If the folder cannot be written, or its file system has no locks.
        """
        if os.path.lexists(self.path) and not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise ValueError(f"{self.path}: not a regular file; delete it")
        lock = FileLock(self.path, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise RunLockedError(
                f"{self.path.parent} is in use by {holder(self.path) or 'another process'}; wait "
                "for it or end it, or choose another --work-dir"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            reason = "the file system has no locks (NFSv4 has, Lustre if mounted with flock)"
            raise OSError(error.errno, reason, str(self.path)) from None
        self._lock = lock
        me = Holder(os.getpid(), socket.gethostname(), datetime.now().isoformat(" ", "seconds"))
        with contextlib.suppress(OSError):  # a full disk: the lock holds, its messages name nobody
            self.path.write_text(json.dumps(asdict(me)) + "\n", encoding="utf-8")

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None


def holder(path: str | Path) -> Holder | None:
    """Tell who holds a lock, without taking or writing anything.

    Args:
        path: The lock's file.

    Returns:
        None if nobody does.
    """
    try:
        # A named pipe must neither block nor count.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse(os.read(file, _MAX_BYTES))
    except OSError:  # no locks here
        return None
    finally:
        os.close(file)
    return None


def run_holder(folder: str | Path) -> Holder | None:
    """Tell who trains a run or, in a sweep, looks after it; None if nobody does."""
    return holder(Path(folder) / RUN_LOCK) or holder(Path(folder) / SWEEP_LOCK)


_held: dict[str, RunLock] = {}


def hold_run(work_dir: str | Path) -> None:
    """Keep other trainings out of a work dir until `release_run` or the end of this process.

    Raises:
        RunLockedError: If another process trains there.
        ValueError: See `RunLock.acquire`.
        OSError: If the folder cannot be written.
    """
    key = os.path.realpath(work_dir)
    if key in _held:
        return
    os.makedirs(work_dir, exist_ok=True)
    lock = RunLock(work_dir)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(f"{error}: nothing keeps a second training out", stacklevel=2)
    _held[key] = lock


def release_run(work_dir: str | Path) -> None:
    """Let others train in a work dir again."""
    lock = _held.pop(os.path.realpath(work_dir), None)
    if lock is not None:
        lock.release()


def _parse(content: bytes) -> Holder:
    try:
        data = json.loads(content)
        found = Holder(data["pid"], data["host"], data["since"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Holder()
    texts = all(isinstance(t, str) and t.isprintable() for t in (found.host, found.since))
    return found if texts and type(found.pid) is int else Holder()

"""A lock per run, so that two sweeps never train the same run at a time.

The lock is a file beside the record. It is born whole (a hard link to a finished file), names its
owner, and the owner touches it now and then. An owner on this machine is alive while its process
is; any other while its heartbeat is fresh.

A dead owner's lock is inherited: the heir links its own entry to ``LOCK.HASH``, HASH being that of
the dead entry, so only one heir can succeed each owner. The last entry of this chain owns the run,
however an heir dies on the way; a living heir then renames its entry to ``LOCK``.
"""

import errno
import hashlib
import json
import os
import socket
import stat
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

LOCK_NAME = "sweep.lock"
#: Seconds between two heartbeats of an owner.
HEARTBEAT_SECONDS = 15.0
#: Seconds without a heartbeat after which an owner on another machine counts as dead.
STALE_SECONDS = 300.0
_MAX_BYTES = 65536
_MAX_CHAIN = 1000


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        host: Name of the host, for people.
        machine: Boot and process id namespace; process ids mean something within it.
        pid: Process id.
        start: When the process started; a process id may be given again, not with this.
        job: Slurm job, or None.
        restarts: How often Slurm had requeued the job.
    """

    host: str
    machine: str
    pid: int
    start: str
    job: str | None = None
    restarts: int = 0

    @classmethod
    def this_process(cls) -> "Owner":
        """Describe the calling process."""
        pid = os.getpid()
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        return cls(
            socket.gethostname(),
            this_machine(),
            pid,
            process_start(pid) or "",
            os.environ.get("SLURM_JOB_ID"),
            int(restarts) if restarts.isdecimal() else 0,
        )

    def __str__(self) -> str:
        """Name it in messages."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Entry:
    """What a lock file holds: its bytes, the owner (None if that cannot be read), the heartbeat."""

    path: Path
    content: bytes
    owner: Owner | None
    heartbeat: float

    def alive(self, now: float) -> bool:
        """Tell whether the owner is alive.

        Args:
            now: Time in seconds since the epoch, by the clock that ``heartbeat`` was taken from.
        """
        owner, me = self.owner, Owner.this_process()
        if owner is not None and owner.machine == me.machine and owner.start:
            return process_start(owner.pid) == owner.start
        same_job = owner is not None and me.job is not None and owner.job == me.job
        if same_job and owner.restarts < me.restarts:  # Slurm ended it before it started us
            return False
        return now - self.heartbeat < STALE_SECONDS


class RunLock:
    """The lock of one run.

    Args:
        folder: The run's folder, which must exist.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LOCK_NAME
        self._mine: bytes | None = None

    def acquire(self) -> Entry | None:
        """Take the lock if it is free or its owner is dead.

        Returns:
            None if the lock is ours now, else the living owner's entry.

        Raises:
            ValueError: If something that is no file stands in the lock's place.
            OSError: If the folder cannot be written.
        """
        mine = json.dumps({**asdict(Owner.this_process()), "token": uuid.uuid4().hex}).encode()
        temp = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.tmp")
        try:
            _write(temp, mine)
            while self._mine is None:
                os.utime(temp)
                chain = self._chain()
                # By the file server's clock, which also dates heartbeats.
                if chain and chain[-1].alive(temp.stat().st_mtime):
                    return chain[-1]
                target = _heir(self.path, chain[-1]) if chain else self.path
                if self._claim(temp, target, mine):
                    self._mine = mine
                    if chain:
                        self._move_in(temp, [*(entry.path for entry in chain[1:]), target])
        except IsADirectoryError:
            raise ValueError(f"{self.path}: not a file; delete it") from None
        finally:
            temp.unlink(missing_ok=True)
        return None

    def _claim(self, temp: Path, target: Path, mine: bytes) -> bool:
        try:
            _link(temp, target)
        except FileExistsError:
            return False
        chain = self._chain()
        if chain and chain[-1].content == mine:
            return True
        # The chain was cut while we looked: the dead owner already has an heir.
        target.unlink(missing_ok=True)
        return False

    def _move_in(self, temp: Path, links: list[Path]) -> None:
        os.replace(temp, self.path)
        for link in links:
            link.unlink(missing_ok=True)

    def beat(self) -> bool:
        """Renew the heartbeat.

        Returns:
            False if the lock is no longer ours, because another took us for dead.
        """
        chain = self._chain()
        if self._mine is None or not chain or chain[-1].content != self._mine:
            self._mine = None
            return False
        os.utime(self.path)
        return True

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        chain = self._chain()
        if self._mine is not None and chain and chain[-1].content == self._mine:
            self.path.unlink(missing_ok=True)
        self._mine = None

    def holder(self) -> Entry | None:
        """Return the living owner's entry, or None. Writes nothing."""
        chain = self._chain()
        return chain[-1] if chain and chain[-1].alive(time.time()) else None

    def _chain(self) -> list[Entry]:
        entries: list[Entry] = []
        path = self.path
        while len(entries) < _MAX_CHAIN and (entry := _read(path)) is not None:
            entries.append(entry)
            path = _heir(self.path, entry)
        return entries


def this_machine() -> str:
    """Identify the running system within which a process id means the same process."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),  # containers may share host name and boot
    ):
        try:
            parts.append(read())
        except OSError:
            continue
    return " ".join(parts)


def process_start(pid: int) -> str | None:
    """Return when a process of this machine started, or None if it does not run.

    Returns:
        Clock ticks since boot on Linux, elsewhere what ``ps`` prints.
    """
    try:
        # The name in brackets may hold spaces and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if os.path.exists("/proc/self/stat"):
            return None
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _heir(lock: Path, entry: Entry) -> Path:
    return lock.with_name(f"{lock.name}.{hashlib.sha256(entry.content).hexdigest()[:32]}")


def _read(path: Path) -> Entry | None:
    try:
        info = os.stat(path)
        content = b""
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    return Entry(path, content, _parse(content), info.st_mtime)


def _parse(content: bytes) -> Owner | None:
    try:
        data = json.loads(content)
        owner = Owner(**{name: data[name] for name in Owner.__annotations__})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (owner.host, owner.machine, owner.start, owner.job or "")
    if not all(isinstance(text, str) for text in texts):
        return None
    numbers = (owner.pid, owner.restarts)
    if not all(type(n) is int and 0 <= n < 2**31 for n in numbers) or owner.pid == 0:
        return None
    return owner


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file; raises FileExistsError if it exists."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # No hard links here. Whoever reads this file before it is whole sees a fresh heartbeat.
        _write(target, source.read_bytes())

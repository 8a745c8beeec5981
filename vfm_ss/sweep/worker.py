"""Trains one run: starts tools/train.py, watches it, starts it again when it fails."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from vfm_ss.protocol.records import RECORD_NAME, read_record
from vfm_ss.sweep.journal import Attempt, Journal, read_journal
from vfm_ss.sweep.lock import (
    HEARTBEAT_SECONDS,
    STALE_SECONDS,
    RunLock,
    process_start,
    this_machine,
)
from vfm_ss.sweep.logs import LOG_NAME, last_error
from vfm_ss.sweep.processes import contents, die_with_parent, end_group

_POLL_SECONDS = 0.2
_MAX_WAIT = 300.0
_NOTE_SECONDS = 4.0
#: Longer than Slurm's usual grace between SIGTERM and SIGKILL (KillWait, GraceTime).
_SLURM_KILL_SECONDS = 120.0


class _Stop(Exception):  # noqa: N818  not an error
    """The training is to end: asked to from outside, or the lock is lost."""


@dataclass
class Worker:
    """What a job of submitit does for one run; picklable.

    Attributes:
        name: Name of the config.
        seed: Random seed.
        folder: The run's folder, absolute.
        command: Trains the run, resuming it.
        cwd: Folder in which the command runs.
        sweep: Id of the sweep.
        retries: How often a failed training is started again.
        hang_seconds: A training that writes nothing into its folder for so long is ended.
        retry_seconds: Pause before the first retry; doubles with each.
        env: Changes to the environment; None removes a variable.
    """

    name: str
    seed: int
    folder: str
    command: tuple[str, ...]
    cwd: str
    sweep: str
    retries: int = 2
    hang_seconds: float = 1800.0
    retry_seconds: float = 10.0
    env: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self):
        self._process: subprocess.Popen | None = None
        self._lock = RunLock(self.folder)
        self._journal: Journal | None = None
        self._next_beat = 0.0
        self._stopped = False

    def __call__(self) -> str:
        """Train the run to its end.

        Returns:
            ``'finished'``, ``'failed'``, ``'stopped'``, or ``'locked'`` if another trains it.
        """
        try:
            with self._stop_on_sigterm():
                return self._train() if self._take_lock() else "locked"
        except _Stop:
            return "stopped"
        finally:
            self._end("stopped")
            self._lock.release()

    def checkpoint(self):
        """Stop before Slurm does; what submitit calls at a time limit or a preemption.

        Returns:
            What submitit runs when Slurm has requeued the job.
        """
        from submitit.helpers import DelayedSubmission

        self._stopped = True
        self._end("stopped")
        self._lock.release()
        return DelayedSubmission(replace(self))

    def _train(self) -> str:
        self._journal = self._open_journal()
        while not self._finished():
            failures = self._journal.failed_attempts()
            if failures > self.retries:
                return self._fail(self._journal.attempts[-1].error)
            if failures:
                self._wait(min(self.retry_seconds * 2 ** (failures - 1), _MAX_WAIT))
            status, error = self._attempt(failures + 1)
            if self._finished():
                break
            if status == -signal.SIGTERM and _under_slurm():
                self._end("stopped")  # Slurm ends the job: SIGTERM to all, then SIGKILL to us
                self._wait(_SLURM_KILL_SECONDS)
                continue
            self._end("failed", error)
            if status == 0:  # trying again would end at once in the same way
                return self._fail(error)
        self._end("finished")
        return "finished"

    def _attempt(self, number: int) -> tuple[int | None, str]:
        """Train once.

        Returns:
            Exit status (None if it hung) and, for a failure, what went wrong.
        """
        log = Path(self.folder, LOG_NAME)
        attempt = Attempt(self.sweep, time.time(), machine=this_machine())
        self._journal.attempts.append(attempt)
        self._journal.write(self.folder)
        with open(log, "ab") as file:
            file.write(self._header(number).encode())
            file.flush()
            start = file.tell()
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, data loading processes included
                preexec_fn=die_with_parent,
            )
        attempt.pid = self._process.pid
        attempt.pid_start = process_start(attempt.pid)
        self._journal.write(self.folder)
        if self._watch():
            return None, f"hung: wrote nothing for {_minutes(self.hang_seconds)}, killed"
        return self._process.returncode, self._describe(log, start)

    def _watch(self) -> bool:
        """Wait until the training ends; return whether it hung instead."""
        seen, since, look = None, time.monotonic(), 0.0
        while self._process.poll() is None:
            self._pause()
            if time.monotonic() >= look:
                look = time.monotonic() + min(self.hang_seconds / 20, 30)
                now = contents(self.folder)
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.hang_seconds:
                    return True
        return False

    def _describe(self, log: Path, start: int) -> str:
        status = self._process.returncode
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
            hint = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
            return f"killed by {name}{hint}"
        if status == 0:
            return (
                f"ended without a finished {RECORD_NAME}: does the config have RecordHook and a "
                "validation at its last step?"
            )
        return last_error(log, start) or f"exit status {status}"

    def _header(self, number: int) -> str:
        now = datetime.now().isoformat(" ", "seconds")
        return f"\n=== sweep: attempt {number} of {self.retries + 1} at {now}\n"

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in self.env}
        return {**kept, **{k: v for k, v in self.env.items() if v is not None}}

    def _finished(self) -> bool:
        try:
            return read_record(Path(self.folder, RECORD_NAME)).status == "finished"
        except ValueError:
            return False

    def _fail(self, error: str | None) -> str:
        self._journal.error = error or "failed"
        self._journal.write(self.folder)
        return "failed"

    def _open_journal(self) -> Journal:
        """Read the journal, and end what a dead worker left running."""
        try:
            journal = read_journal(self.folder)
        except ValueError:
            journal = None  # damaged; it is ours to write now
        if journal is None:
            journal = Journal(self.name, self.seed, self.sweep, self.retries + 1)
        journal.sweep, journal.max_attempts, journal.error = self.sweep, self.retries + 1, None
        for attempt in journal.attempts:
            if attempt.result != "running":
                continue
            pid, here = attempt.pid, attempt.machine == this_machine()
            if here and pid and process_start(pid) == attempt.pid_start:
                end_group(pid, lambda pid=pid: process_start(pid) is None)
            requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
            attempt.result = "stopped" if requeued else "failed"
            attempt.error = None if requeued else "the process that looked after it was killed"
        journal.write(self.folder)
        return journal

    def _take_lock(self) -> bool:
        """Take the lock; wait for that of an owner elsewhere who may be dead."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        first = self._lock.acquire()
        holder, since = first, time.monotonic()
        while holder is not None:
            waited = time.monotonic() - since
            alive = holder.owner is not None and holder.owner.machine == this_machine()
            renewed = (holder.content, holder.heartbeat) != (first.content, first.heartbeat)
            # Somebody who only makes a note in the journal holds the lock for a moment.
            if waited > _NOTE_SECONDS and (alive or renewed or waited > 2 * STALE_SECONDS):
                return False
            time.sleep(min(_NOTE_SECONDS, HEARTBEAT_SECONDS) / 4)
            if self._stopped:
                raise _Stop
            holder = self._lock.acquire()
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        return True

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._pause()

    def _pause(self) -> None:
        """Sleep a little, keep the lock.

        Raises:
            _Stop: If the training is to end.
        """
        time.sleep(_POLL_SECONDS)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            if not self._lock.beat():
                self._journal = None  # it is the new owner's now
                raise _Stop
        if self._stopped:
            raise _Stop

    def _end(self, result: str, error: str | None = None) -> None:
        """End the training, if it still runs, and note how the attempt ended."""
        process, self._process = self._process, None
        if process is None:
            return
        end_group(process.pid, lambda: process.poll() is not None)
        if self._journal is not None:
            attempt = self._journal.attempts[-1]
            attempt.result, attempt.error = result, error
            self._journal.write(self.folder)

    @contextmanager
    def _stop_on_sigterm(self) -> Iterator[None]:
        """Let SIGTERM end the training, except under Slurm.

        There it may announce a preemption, after which a job that has ended is not requeued.
        """

        def stop(*_):
            self._stopped = True

        if _under_slurm():
            yield
            return
        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _under_slurm() -> bool:
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minutes"

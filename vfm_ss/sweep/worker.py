"""Trains one run: starts tools/train.py, watches it, starts it again when it fails."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from vfm_ss.protocol.records import RECORD_NAME
from vfm_ss.run_lock import RUN_LOCK, SWEEP_LOCK, RunLock, RunLockedError, holder
from vfm_ss.sweep.identity import HOLDS_OTHER, difference, lacking
from vfm_ss.sweep.journal import JOURNAL_NAME, Attempt, Journal, open_journal
from vfm_ss.sweep.logs import LOG_NAME, last_error
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.status import finished_record

#: Seconds that a training has to end by itself after SIGTERM.
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.2
_MAX_WAIT = 300.0
#: Longer than Slurm's usual grace between SIGTERM and SIGKILL (KillWait, GraceTime).
_SLURM_KILL_SECONDS = 120.0
#: Longer than a file server keeps the locks of a node that has failed.
_SLURM_LOCK_SECONDS = 300.0


class _Stop(Exception):  # noqa: N818  not an error
    """The training is to end: asked to from outside."""


@dataclass(frozen=True)
class Rules:
    """How runs are treated."""

    retries: int = 2  # how often a failed training is started again
    hang_seconds: float = 1800.0  # one that writes nothing into its folder for so long is ended
    retry_seconds: float = 10.0  # pause before the first retry; doubles with each


@dataclass
class Worker:
    """Looks after one run, in a thread of the sweep or as a job of submitit; picklable."""

    run: PlannedRun
    rules: Rules
    sweep: str  # its id
    cwd: str  # in which the run's command runs
    env: dict[str, str] = field(default_factory=dict)  # changes to the environment
    say: Callable[[str], None] = print  # called with a line for every failure

    def __post_init__(self):
        self.folder = Path(self.cwd, self.run.work_dir)
        self._process: subprocess.Popen | None = None
        self._journal: Journal | None = None
        self._stopped = self._slurm_ends_it = False

    def __call__(self) -> str:
        """Train the run to its end.

        Returns:
            ``'finished'``, ``'failed'``, ``'stopped'``, or ``'locked'`` if another trains it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock, training = RunLock(self.folder, SWEEP_LOCK), RunLock(self.folder)
        try:
            for one in (lock, training):
                one.acquire(_SLURM_LOCK_SECONDS if _under_slurm() else 1)
            training.release()  # nobody trains it; tools/train.py takes this one itself
            if _under_slurm():  # it announces a preemption to all processes of a job
                signal.signal(signal.SIGTERM, self._note_sigterm)
            return self._train()
        except RunLockedError:
            return "locked"
        except _Stop:
            return "stopped"
        finally:
            self._end("stopped")
            lock.release()

    def stop(self) -> None:
        """Have the training end soon; called from another thread."""
        self._stopped = True

    def checkpoint(self):
        """Stop before Slurm does; what submitit calls at a time limit.

        Returns:
            What submitit runs when Slurm has requeued the job.
        """
        from submitit.helpers import DelayedSubmission

        self._stopped = True
        self._end("stopped")
        return DelayedSubmission(replace(self))

    def _note_sigterm(self, *_) -> None:
        self._slurm_ends_it = True

    def _train(self) -> str:
        journal = self._journal = self._open_journal()
        while not self._finished():
            if other := self._other_run():
                return self._fail(other)
            failed = journal.failures(self.sweep)
            if len(failed) > self.rules.retries:
                return self._fail(failed[-1].error)
            if failed:
                self._wait(min(self.rules.retry_seconds * 2 ** (len(failed) - 1), _MAX_WAIT))
            status, error = self._attempt(len(failed) + 1)
            if self._finished():
                break
            _end_group(self._process)
            if self._slurm_ends_it:
                self._end("stopped")
                self._wait(_SLURM_KILL_SECONDS)
            elif holder(self.folder / RUN_LOCK):  # somebody was faster
                return "locked"
            else:
                self._end("failed", error)
                of = self.rules.retries + 1
                self.say(f"attempt {len(failed) + 1} of {of} failed: {self.run}: {error}")
                if status == 0:  # trying again would end at once in the same way
                    return self._fail(error)
        self._end("finished")
        return "finished"

    def _open_journal(self) -> Journal:
        """Read the journal, and note how that attempt ended whose sweep did not live to see it."""
        journal = open_journal(self.folder, self.run.name, self.run.seed)
        journal.error, journal.config_hash = None, self.run.config_hash
        for attempt in journal.attempts:
            if attempt.result != "running":
                continue
            if self._finished():
                attempt.result = "finished"
            elif os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
                attempt.result = "stopped"
            else:
                attempt.result = "failed"
                attempt.error = "the sweep that looked after it was killed"
        if _under_slurm():
            from submitit import JobEnvironment

            journal.job = JobEnvironment().job_id
        journal.write(self.folder)
        return journal

    def _attempt(self, number: int) -> tuple[int | None, str]:
        """Train once.

        Returns:
            Exit status (None if it hung) and, for a failure, what went wrong.
        """
        attempt = Attempt(self.sweep, time.time())
        self._journal.attempts.append(attempt)
        log, now = self.folder / LOG_NAME, datetime.now().isoformat(" ", "seconds")
        with open(log, "ab") as file:
            of = self.rules.retries + 1
            file.write(f"\n=== sweep: attempt {number} of {of} at {now}\n".encode())
            file.flush()
            start = file.tell()
            self._process = subprocess.Popen(
                self.run.command,
                cwd=self.cwd,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, data loading processes included
            )
        attempt.pid = self._process.pid
        self._journal.write(self.folder)
        if self._hangs():
            minutes = self.rules.hang_seconds / 60
            return None, f"hung: wrote nothing for {minutes:g} minutes, killed"
        return self._process.returncode, self._describe(log, start)

    def _hangs(self) -> bool:
        """Wait until the training ends; return whether it hung instead."""
        seen, since, look = None, time.monotonic(), 0.0
        while self._process.poll() is None:
            self._wait(_POLL_SECONDS)
            if time.monotonic() >= look:
                look = time.monotonic() + min(self.rules.hang_seconds / 20, 30)
                now = _contents(self.folder)
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.rules.hang_seconds:
                    return True
        return False

    def _describe(self, log: Path, start: int) -> str:
        status = self._process.returncode
        if status == 0:
            if self._lacking():
                return f"ended without a score on {', '.join(self._lacking())}"
            return self._other_run() or (
                f"ended without a finished {RECORD_NAME}: does the config have RecordHook and a "
                "validation at its last step?"
            )
        if status > 0:
            return last_error(log, start) or f"exit status {status}"
        known = -status in set(signal.Signals)
        hint = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name if known else f'signal {-status}'}{hint}"

    def _finished(self) -> bool:
        record = finished_record(self.folder)
        return record is not None and self._other_run() is None and not self._lacking()

    def _lacking(self) -> list[str]:
        """Return what a finished run of ours has still to be evaluated on."""
        record, asked = finished_record(self.folder), self.run.asked
        return [] if record is None or asked is None else lacking(record, asked)

    def _other_run(self) -> str | None:
        """Say how a finished run in the folder differs from ours, where it does."""
        record, asked = finished_record(self.folder), self.run.asked
        if record is None or asked is None:
            return None
        other = difference(record, asked)
        return None if other is None else f"{HOLDS_OTHER}: {other}"

    def _fail(self, error: str | None) -> str:
        self._journal.error = error or "failed"
        self._journal.write(self.folder)
        return "failed"

    def _wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            _Stop: If the training is to end.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(seconds, _POLL_SECONDS))
            if self._stopped:
                raise _Stop

    def _end(self, result: str, error: str | None = None) -> None:
        """End the training, if it still runs, and note how the attempt ended."""
        process, self._process = self._process, None
        if process is not None:
            _end_group(process)
            attempt = self._journal.attempts[-1]
            attempt.result, attempt.error = result, error
            self._journal.write(self.folder)


def _end_group(process: subprocess.Popen) -> None:
    """End a training with all its processes: ask, then kill."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Nobody is left, or, on macOS, only zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def _contents(folder: str | Path, depth: int = 3) -> set[tuple[str, int, int]]:
    """List names, sizes and times of a run's files; our own do not count."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # deleted meanwhile
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found |= _contents(entry.path, depth - 1) if depth > 1 else set()
            elif SWEEP_LOCK not in entry.name and JOURNAL_NAME not in entry.name:
                info = entry.stat(follow_symlinks=False)
                found.add((entry.path, info.st_size, info.st_mtime_ns))
    return found


def _under_slurm() -> bool:
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"

"""Keeps a sweep going until every run is done or has failed."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfm_ss.sweep.engines import queued_jobs
from vfm_ss.sweep.journal import Journal, read_journal
from vfm_ss.sweep.lock import RunLock
from vfm_ss.sweep.plan import Run
from vfm_ss.sweep.processes import kill_run
from vfm_ss.sweep.status import RunState, look
from vfm_ss.sweep.worker import Worker

#: Seconds between two looks at the runs that others train, and at all of them for display.
_LOOK_SECONDS = 3.0


class Interrupted(Exception):  # noqa: N818  not an error
    """The sweep was asked to end; the message says what to tell the user."""


@dataclass(frozen=True)
class Rules:
    """How a run is treated; see `worker.Worker`."""

    retries: int = 2
    hang_seconds: float = 1800.0
    retry_seconds: float = 10.0


class Sweep:
    """Trains runs on an engine.

    Args:
        runs: The runs.
        engine: Where their workers run, see `engines`.
        rules: How each run is treated.
        say: Called with a line for every event.
        show: Called with the states of all runs now and then.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        engine,
        rules: Rules,
        say: Callable[[str], None],
        show: Callable[[list[RunState]], None] = lambda states: None,
    ):
        self.id = uuid.uuid4().hex
        self.runs = list(runs)
        self._engine = engine
        self._rules = rules
        self._say = say
        self._show = show
        self._waiting: list[Run] = []
        self._working: dict[str, Run] = {}
        self._elsewhere: list[Run] = []
        self._submissions: dict[Run, int] = {}
        self._told: dict[Run, int] = {}
        self._done: dict[Run, RunState] = {}
        self._next_look = 0.0

    def states(self) -> list[RunState]:
        """Look at every run."""
        return [self._look(run) for run in self.runs]

    def _look(self, run: Run) -> RunState:
        state = self._done.get(run) or look(run.work_dir, run.name, run.seed)
        if state.state == "done":
            self._done[run] = state
        return state

    def run(self, wait: bool = True) -> list[RunState]:
        """Train until every run is done or has failed.

        Args:
            wait: Whether to wait for what was submitted; without, what is queued is left to Slurm.

        Returns:
            The states of all runs.

        Raises:
            Interrupted: At SIGINT, SIGTERM or SIGHUP, after everything has been ended.
        """
        with _signals_interrupt():
            try:
                self._sort_in()
                self._submit()
                while wait and (self._waiting or self._working or self._elsewhere):
                    time.sleep(self._engine.poll_seconds)
                    self._collect()
                    if time.monotonic() >= self._next_look:
                        self._next_look = time.monotonic() + _LOOK_SECONDS
                        self._look_elsewhere()
                        self._report()
                    self._submit()
            except (KeyboardInterrupt, Interrupted):
                raise Interrupted(self._stop()) from None
            except BaseException:
                self._stop()
                raise
        states = self.states()
        if all(state.state == "done" for state in states):
            self._engine.tidy()
        return states

    def _stop(self) -> str:
        """End what the engine is to end; returns what to tell the user, or ''."""
        runs = list(self._working.values())
        advice = self._engine.stop(list(self._working))
        for run in [] if self._engine.queues else runs:
            kill_run(run.work_dir, self.id)  # a worker that did not react
        return advice

    def _sort_in(self) -> None:
        """Sort the runs into those that are done, those that others train, and ours."""
        queue = self._queue(self.runs)
        for run, state in zip(self.runs, self.states(), strict=True):
            if state.state == "done":
                self._say(f"finished before: {run}")
            elif state.state == "running":
                self._say(f"trained by another: {run}{_owner(run)}")
                self._elsewhere.append(run)
            elif self._journal(run).job in queue:
                self._say(f"waits in Slurm's queue already: {run}")
                self._elsewhere.append(run)
            else:
                self._register(run)
                self._waiting.append(run)

    def _queue(self, runs: Sequence[Run]) -> set[str]:
        """Ask Slurm for its queue, if any of the runs was ever submitted."""
        return queued_jobs() or set() if any(self._journal(run).job for run in runs) else set()

    def _register(self, run: Run, job: str | None = None) -> None:
        """Note in the run's folder that it belongs to a sweep, so that status knows of it."""
        run.work_dir.mkdir(parents=True, exist_ok=True)
        lock = RunLock(run.work_dir)
        if lock.acquire() is not None:
            return  # whoever trains it keeps its journal
        try:
            journal = self._journal(run)
            journal.sweep, journal.job, journal.error = self.id, job, None
            journal.write(run.work_dir)
        finally:
            lock.release()

    def _journal(self, run: Run) -> Journal:
        try:
            journal = read_journal(run.work_dir)
        except ValueError:
            journal = None  # damaged
        return journal or Journal(run.name, run.seed, self.id, self._rules.retries + 1)

    def _submit(self) -> None:
        runs = self._waiting[: self._engine.free()]
        if not runs:
            return
        del self._waiting[: len(runs)]
        for run, handle in zip(
            runs, self._engine.submit(list(map(self._worker, runs))), strict=True
        ):
            self._working[handle] = run
            self._submissions[run] = self._submissions.get(run, 0) + 1
            if self._engine.queues:
                self._register(run, handle)
            self._say(f"{'submitted' if self._engine.queues else 'started'}: {run}")

    def _worker(self, run: Run) -> Worker:
        rules = self._rules
        return Worker(
            name=run.name,
            seed=run.seed,
            folder=str(run.work_dir.absolute()),
            command=run.command,
            cwd=os.getcwd(),
            sweep=self.id,
            retries=rules.retries,
            hang_seconds=rules.hang_seconds,
            retry_seconds=rules.retry_seconds,
        )

    def _collect(self) -> None:
        """Find out what became of the runs whose workers have ended, here or elsewhere."""
        for handle in self._engine.ended(list(self._working)):
            run = self._working.pop(handle)
            state = self._look(run)
            self._tell(run)
            if state.state == "done":
                score = "unknown" if state.miou is None else f"{state.miou:.2f}"
                self._say(f"done: {run}, mIoU {score}")
            elif state.state == "failed":
                self._say(f"failed: {run}; log: {state.log}")
            elif state.state == "running":  # another sweep was faster
                self._submissions[run] -= 1
                self._elsewhere.append(run)
            elif self._submissions[run] > self._rules.retries:
                self._give_up(run, self._engine.log(handle))
            else:
                self._say(f"its worker was killed, trying again: {run}")
                self._waiting.append(run)

    def _look_elsewhere(self) -> None:
        queue = self._queue(self._elsewhere)
        for run in list(self._elsewhere):
            state = self._look(run)
            if state.state == "running":
                continue
            if state.state != "done" and self._journal(run).job in queue:
                continue
            self._elsewhere.remove(run)
            if state.state in ("done", "failed"):
                self._say(f"{state.state} elsewhere: {run}")
            else:
                self._say(f"left behind by another: {run}")
                self._waiting.append(run)

    def _give_up(self, run: Run, log: Path) -> None:
        error = f"its worker was killed {self._submissions[run]} times; see {log}"
        lock = RunLock(run.work_dir)
        if lock.acquire() is not None:
            self._elsewhere.append(run)
            return
        try:
            journal = self._journal(run)
            journal.error = error
            journal.write(run.work_dir)
        finally:
            lock.release()
        self._say(f"failed: {run}: {error}")

    def _report(self) -> None:
        for run in self._working.values():
            self._tell(run)
        self._show(self.states())

    def _tell(self, run: Run) -> None:
        """Say once of every attempt that it failed."""
        journal = self._journal(run)
        failed = [a for a in journal.attempts if a.sweep == self.id and a.result == "failed"]
        for number in range(self._told.get(run, 0), len(failed)):
            self._say(
                f"attempt {number + 1} of {self._rules.retries + 1} failed: {run}: "
                f"{failed[number].error}"
            )
        self._told[run] = len(failed)


def _owner(run: Run) -> str:
    holder = RunLock(run.work_dir).holder()
    return f", {holder.owner}" if holder and holder.owner else ""


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Raise Interrupted at SIGTERM and SIGHUP, too, unless they are ignored (nohup)."""

    def interrupt(number, frame):
        raise Interrupted(signal.Signals(number).name)

    before = {}
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if number not in before and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

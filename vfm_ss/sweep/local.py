"""Trains runs on this machine: each has its GPUs and a thread that looks after it."""

import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from vfm_ss.run_lock import run_holder
from vfm_ss.sweep.journal import register
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.status import duration, finished_before, look
from vfm_ss.sweep.worker import Rules, Worker

_POLL_SECONDS = 0.5


class LocalSweep:
    """Keeps runs going until each is done or has failed.

    Args:
        runs: The runs, in the order in which they start.
        slots: What each parallel run gets: its GPUs as in ``CUDA_VISIBLE_DEVICES``, or None.
        rules: How each run is treated.
        say: Called with a line for every event.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        slots: Sequence[str | None],
        rules: Rules,
        say: Callable[[str], None],
    ):
        self._id = uuid.uuid4().hex
        self._waiting, self._free = list(runs), list(slots)
        self._rules, self._say = rules, say
        self._pool = ThreadPoolExecutor(len(slots))
        self._working: dict[PlannedRun, tuple[Worker, Future, str | None]] = {}
        self._told: set[PlannedRun] = set()
        self._slots, self._seconds, self._since = len(slots), [], {}  # of runs ended, of others
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._threads = str(max(1, (cores or 1) // len(slots)))

    def wait(self) -> None:
        """Train until every run is done or has failed, here or elsewhere.

        Raises:
            KeyboardInterrupt: At Ctrl-C, after all trainings have been ended.
        """
        try:
            self._sort_out()
            if self._waiting:
                self._say(f"to train: {len(self._waiting)} runs, {self._slots} at a time")
            while self._waiting or self._working:
                self._start()
                time.sleep(_POLL_SECONDS)
                self._collect()
        finally:
            for worker, _, _ in self._working.values():
                worker.stop()
            self._pool.shutdown()

    def advice(self) -> str:
        """Return what to add to the message of an interruption."""
        return ""

    def _sort_out(self) -> None:
        for run in list(self._waiting):
            found = look(run.work_dir, asked=run.asked)
            if found.state == "done":
                self._say(finished_before(run, found))
                self._waiting.remove(run)
            elif found.state != "running":
                register(run.work_dir, run.name, run.seed, config_hash=run.config_hash)

    def _start(self) -> None:
        """Start runs that nobody trains while there are slots."""
        for run in list(self._waiting):
            if not self._free:
                return
            holder = run_holder(run.work_dir)
            if holder is None:
                self._waiting.remove(run)
                self._say(f"{'taken over' if run in self._told else 'started'}: {run}")
                slot, self._since[run] = self._free.pop(0), time.monotonic()
                worker = Worker(run, self._rules, self._id, os.getcwd(), self._env(slot), self._say)
                self._working[run] = worker, self._pool.submit(worker), slot
            elif run not in self._told:
                self._told.add(run)
                self._say(f"trained by another: {run}, {holder}")

    def _env(self, slot: str | None) -> dict[str, str]:
        env = {} if slot is None else {"CUDA_VISIBLE_DEVICES": slot}
        if not slot and "OMP_NUM_THREADS" not in os.environ:  # the runs share the cores
            env["OMP_NUM_THREADS"] = self._threads
        return env

    def _collect(self) -> None:
        for run, (_, future, slot) in list(self._working.items()):
            if not future.done():
                continue
            del self._working[run]
            self._free.append(slot)
            seconds = time.monotonic() - self._since.pop(run)
            if future.exception() is not None:  # a full disk, for example
                self._say(f"left undone: {run}: {future.exception()}")
            elif future.result() == "locked":
                self._waiting.append(run)
            elif future.result() == "finished":
                miou = look(run.work_dir).miou
                self._seconds.append(seconds)
                score = "unknown" if miou is None else f"{miou:.2f}"
                self._say(f"done: {run}, mIoU {score}{self._left()}")
            else:
                self._say(f"failed: {run}; log: {look(run.work_dir).log}")

    def _left(self) -> str:
        """Say how many runs are left, and how long if they take as long as those before."""
        left = len(self._waiting) + len(self._working)
        if not left:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        now = time.monotonic()
        begun = sum(max(mean - (now - since), 0) for since in self._since.values())
        estimate = (begun + mean * len(self._waiting)) / self._slots
        return f" ({left} left, about {duration(estimate)})"


def local_slots(jobs: int | None, gpus_per_run: int) -> list[str | None]:
    """Share this machine's GPUs among parallel runs.

    Args:
        jobs: How many runs at a time; None for as many as the GPUs allow, without a GPU one.
        gpus_per_run: GPUs of each run; 0 hides them.

    Raises:
        ValueError: If there are too few GPUs.
    """
    if gpus_per_run == 0:
        return [""] * (jobs or 1)
    gpus = _visible_gpus()
    if not gpus:
        return [None] * (jobs or 1)
    most = len(gpus) // gpus_per_run
    if (jobs or 1) > most:
        raise ValueError(
            f"{jobs or 1} runs at a time with {gpus_per_run} GPU(s) each need more than the "
            f"{len(gpus)} GPU(s) of this machine ({', '.join(gpus)}); lower --jobs or "
            "--gpus-per-run"
        )
    parts = (gpus[k * gpus_per_run : (k + 1) * gpus_per_run] for k in range(jobs or most))
    return [",".join(part) for part in parts]


def _visible_gpus() -> list[str]:
    """Return this machine's NVIDIA GPUs as ``CUDA_VISIBLE_DEVICES`` names them, without torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in re.split(r"[,\s]+", chosen) if gpu and gpu != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU (\d+):", done.stdout, re.MULTILINE) if done.returncode == 0 else []

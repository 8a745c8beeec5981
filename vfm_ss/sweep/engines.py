"""Where workers run: local processes or Slurm, both through submitit."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from vfm_ss.sweep.processes import GRACE_SECONDS
from vfm_ss.sweep.worker import Worker

#: Folder of submitit's files in a work dir.
FOLDER_NAME = ".sweep"
_NEVER_MINUTES = 60 * 24 * 365 * 10


class LocalEngine:
    """Processes on this machine, each with its GPUs.

    Args:
        folder: Folder of submitit's files; removed when the sweep is done.
        slots: What each parallel run gets: its GPUs as in ``CUDA_VISIBLE_DEVICES``, or None.
    """

    #: Seconds between two looks at the workers.
    poll_seconds = 0.5
    #: Whether a worker may wait in a queue that outlives us.
    queues = False

    def __init__(self, folder: str | Path, slots: Sequence[str | None]):
        self._folder = Path(folder)
        self._free = list(slots)
        self._jobs = {}
        self._count = 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._threads = max(1, (cores or 1) // len(slots))

    def free(self) -> int:
        """Return how many workers could be submitted now."""
        return len(self._free)

    def submit(self, workers: Sequence[Worker]) -> list[str]:
        """Start workers; returns a handle for each."""
        return [self._start(worker) for worker in workers]

    def _start(self, worker: Worker) -> str:
        from submitit import LocalExecutor

        # A folder each: submitit names its files after process ids, which are given again.
        self._count += 1
        executor = LocalExecutor(self._folder / str(self._count))
        executor.update_parameters(timeout_min=_NEVER_MINUTES, stderr_to_stdout=True)
        slot = self._free.pop(0)
        worker.env["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        if slot is not None:
            worker.env["CUDA_VISIBLE_DEVICES"] = slot
        if not slot and "OMP_NUM_THREADS" not in os.environ:  # the runs share the cores
            worker.env["OMP_NUM_THREADS"] = str(self._threads)
        # Ctrl-C reaches the whole group of the terminal; workers wait for our SIGTERM instead.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            job = executor.submit(worker)
        finally:
            signal.signal(signal.SIGINT, before)
        self._jobs[job.job_id] = job, slot
        return job.job_id

    def ended(self, handles: Sequence[str]) -> list[str]:
        """Return those workers that have ended."""
        done = [handle for handle in handles if self._jobs[handle][0].done()]
        for handle in done:
            self._free.append(self._jobs.pop(handle)[1])
        return done

    def log(self, handle: str) -> Path:
        """Return the file that a worker, not its training, prints to."""
        return next(self._folder.glob(f"*/{handle}_0_log.out"), self._folder)

    def tidy(self) -> None:
        """Remove what is of no use when every run is done."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another sweep's files
            self._folder.parent.rmdir()

    def stop(self, handles: Sequence[str]) -> str:
        """End workers and their trainings; returns what to tell the user, or ''."""
        handles = [handle for handle in handles if handle in self._jobs]
        end = time.monotonic() + 2 * GRACE_SECONDS
        while handles and time.monotonic() < end:
            for handle in handles:  # repeated: a worker that is just starting may miss one
                _kill(int(handle), signal.SIGTERM)
            time.sleep(0.5)
            done = self.ended(handles)
            handles = [handle for handle in handles if handle not in done]
        for handle in handles:
            _kill(int(handle), signal.SIGKILL)
        return ""


class SlurmEngine:
    """Job arrays of Slurm.

    Args:
        folder: Folder of submitit's files, which the nodes share.
        parallel: How many runs of an array may run at a time; None for no limit.
        max_timeouts: How often a run may reach the time limit and be queued again.
        parameters: Arguments of submitit's ``SlurmExecutor.update_parameters``.

    Raises:
        ValueError: If Slurm is not there, or a parameter is unknown.
    """

    poll_seconds = 20.0
    queues = True

    def __init__(self, folder: str | Path, parallel: int | None, max_timeouts: int, **parameters):
        from submitit import SlurmExecutor

        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ValueError("--executor slurm needs sbatch and srun, which are not in PATH")
        self._executor = SlurmExecutor(folder, max_num_timeout=max_timeouts)
        # What Slurm ends for its own reasons (a node fails, another job comes first) it requeues.
        extra = {"requeue": True, **parameters.pop("additional_parameters", {})}
        if parallel is not None:
            parameters["array_parallelism"] = parallel
        try:
            self._executor.update_parameters(
                job_name="vfm_ss-sweep",
                stderr_to_stdout=True,
                additional_parameters=extra,
                **parameters,
            )
        except ValueError as error:
            raise ValueError(" ".join(str(error).split())) from None

    def free(self) -> int:
        """Return how many workers could be submitted now: any number, Slurm queues them."""
        return 10**6

    def submit(self, workers: Sequence[Worker]) -> list[str]:
        """Submit workers as one array; returns a handle for each, its job id.

        Raises:
            ValueError: If Slurm refuses.
        """
        try:
            jobs = self._executor.submit_array(list(workers))
        except RuntimeError as error:  # submitit's FailedSubmissionError
            reason = " ".join(str(error).split())
            raise ValueError(f"Slurm refuses the jobs: {reason}") from None
        return [job.job_id for job in jobs]

    def ended(self, handles: Sequence[str]) -> list[str]:
        """Return those workers that Slurm does not have in its queue any more."""
        queue = queued_jobs()
        return [] if queue is None else [handle for handle in handles if handle not in queue]

    def log(self, handle: str) -> Path:
        """Return the file that a worker, not its training, prints to."""
        return Path(self._executor.folder, f"{handle}_0_log.out")

    def tidy(self) -> None:
        """Keep Slurm's files: jobs may still need them."""

    def stop(self, handles: Sequence[str]) -> str:
        """Leave the jobs alone; returns how to cancel them."""
        jobs = sorted({handle.partition("_")[0] for handle in handles})
        if not jobs:
            return ""
        return (
            f"the Slurm jobs go on without this command; to cancel them: scancel {' '.join(jobs)}"
        )


def queued_jobs() -> set[str] | None:
    """Return the ids of this user's jobs, ``JOB_TASK`` for arrays; None if Slurm does not say."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


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
    gpus = visible_gpus()
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


def visible_gpus() -> list[str]:
    """Return this machine's NVIDIA GPUs as ``CUDA_VISIBLE_DEVICES`` names them, without torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in re.split(r"[,\s]+", chosen) if gpu and gpu != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU (\d+):", done.stdout, re.MULTILINE) if done.returncode == 0 else []


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

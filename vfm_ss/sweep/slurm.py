"""Trains runs as job arrays of Slurm, through submitit."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from vfm_ss.sweep.journal import open_journal, register
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.status import finished_before, look
from vfm_ss.sweep.worker import Rules, Worker

#: Folder of submitit's files in a work dir.
FOLDER_NAME = ".sweep"
POLL_SECONDS = 20.0


class SlurmSweep:
    """Submits runs and waits for them.

    Args:
        runs: The runs.
        rules: How each run is treated.
        say: Called with a line for every event.
        folder: Folder of submitit's files, which the nodes share.
        max_timeouts: How often a run may reach the time limit and be queued again.
        parameters: Arguments of submitit's ``SlurmExecutor.update_parameters``.

    Raises:
        ValueError: If Slurm or submitit is not there, or a parameter is unknown.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        rules: Rules,
        say: Callable[[str], None],
        folder: str | Path,
        max_timeouts: int,
        **parameters,
    ):
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise ValueError("--executor slurm needs submitit: pip install submitit") from None
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ValueError("--executor slurm needs sbatch and srun, which are not in PATH")
        self._id, self._runs, self._rules, self._say = uuid.uuid4().hex, list(runs), rules, say
        self._jobs = {r: open_journal(r.work_dir, r.name, r.seed).job for r in runs}
        self._executor = SlurmExecutor(folder, max_num_timeout=max_timeouts)
        # What Slurm ends for its own reasons (a node fails, another job comes first) it requeues.
        extra = {"requeue": True, **parameters.pop("additional_parameters", {})}
        try:
            self._executor.update_parameters(
                job_name="vfm_ss-sweep",
                stderr_to_stdout=True,
                additional_parameters=extra,
                **parameters,
            )
        except ValueError as error:
            raise ValueError(" ".join(str(error).split())) from None

    def submit(self) -> None:
        """Submit what is not done, not in the queue and not trained, as one array.

        Raises:
            ValueError: If Slurm refuses.
        """
        queue, todo = queued_jobs() or set(), []
        for run in self._runs:
            found = look(run.work_dir, asked=run.asked)
            if found.state == "done":
                self._say(finished_before(run, found))
            elif found.state == "running":
                self._say(f"trained by another: {run}")
            elif self._jobs[run] in queue:
                self._say(f"waits in Slurm's queue already: {run}")
            else:
                register(run.work_dir, run.name, run.seed, config_hash=run.config_hash)
                todo.append(run)
        workers = [Worker(run, self._rules, self._id, os.getcwd()) for run in todo]
        try:
            jobs = self._executor.submit_array(workers) if workers else []
        except RuntimeError as error:  # submitit's FailedSubmissionError
            reason = " ".join(str(error).split())
            raise ValueError(f"Slurm refuses the jobs: {reason}") from None
        for run, job in zip(todo, jobs, strict=True):
            self._jobs[run] = job.job_id
            register(run.work_dir, run.name, run.seed, job.job_id, config_hash=run.config_hash)
            self._say(f"submitted: {run}")

    def wait(self) -> None:
        """Wait until no run is queued or trained."""
        while True:
            queue = queued_jobs()
            running = any(look(run.work_dir).state == "running" for run in self._runs)
            if queue is not None and queue.isdisjoint(self._jobs.values()) and not running:
                return
            time.sleep(POLL_SECONDS)

    def advice(self) -> str:
        """Return what to add to the message of an interruption: how to cancel the jobs."""
        jobs = (queued_jobs() or set()).intersection(filter(None, self._jobs.values()))
        ids = " ".join(sorted({job.partition("_")[0] for job in jobs}))
        return f"; the Slurm jobs go on without it; to cancel them: scancel {ids}"


def queued_jobs() -> set[str] | None:
    """Return the ids of this user's jobs, ``JOB_TASK`` for arrays; None if Slurm does not say."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None

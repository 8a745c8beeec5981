"""Workers under submitit's executors: debug, local, and Slurm with a stand-in for its commands."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vfm_ss.sweep.engines import LocalEngine, SlurmEngine
from vfm_ss.sweep.journal import Attempt, Journal, read_journal
from vfm_ss.sweep.lock import LOCK_NAME, RunLock
from vfm_ss.sweep.worker import Worker

submitit = pytest.importorskip("submitit")

HERE = Path(__file__).parent
RUNS = [["a", 0, "none"], ["b", 0, "crash-once"], ["c", 0, "none"]]
SLURM = ("--executor", "slurm", "--time", "1-12:00:00", "--partition", "gpu", "--configs", "x")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm in PATH; gives its folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n" + (HERE / "fake_slurm.py").read_text())
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def worker(folder, fault="none", **options):
    folder.mkdir(parents=True)
    command = (sys.executable, str(HERE / "stand_in.py"), str(folder), "a", "0", fault)
    return Worker("a", 0, str(folder), command, str(folder), "id", retry_seconds=0, **options)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def end(process, status):
    out = process.communicate(timeout=120)[0]
    assert process.returncode == status, out
    return out


def results(folder):
    return [attempt.result for attempt in read_journal(folder).attempts]


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [("none", "finished", ["finished"]), ("crash-once", "finished", ["failed", "finished"]),
     ("crash", "failed", ["failed"] * 2), ("quit", "failed", ["failed"])],
)  # fmt: skip
def test_a_worker_in_submitits_debug_executor(fault, outcome, attempts, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    run = tmp_path / "run"
    job = submitit.DebugExecutor(tmp_path / "jobs").submit(worker(run, fault, retries=1))
    assert job.result() == outcome
    assert results(run) == attempts
    assert not list(run.glob(f"*{LOCK_NAME}*"))


def test_a_worker_leaves_a_locked_run_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("vfm_ss.sweep.worker._NOTE_SECONDS", 0.1)
    job = worker(tmp_path / "run")
    lock = RunLock(tmp_path / "run")
    assert lock.acquire() is None
    assert job() == "locked"
    assert not (tmp_path / "run" / "trained").exists()
    assert lock.holder() is not None


def test_a_worker_that_loses_its_lock_stops_training(tmp_path, monkeypatch):
    monkeypatch.setattr("vfm_ss.sweep.worker.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setenv("STAND_IN_SECONDS", "30")
    run = tmp_path / "run"
    job = worker(run)
    write = type(job)._watch

    def lose_it(self):
        (run / LOCK_NAME).write_text("another's")
        return write(self)

    monkeypatch.setattr(Worker, "_watch", lose_it)
    assert job() == "stopped"
    assert (run / LOCK_NAME).read_text() == "another's"
    assert results(run) == ["running"], "the journal is the new owner's"


def test_submitits_local_executor_requeues_a_preempted_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    monkeypatch.setenv("STAND_IN_SECONDS", "0.4")
    run = tmp_path / "run"
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    executor.update_parameters(timeout_min=60)
    job = executor.submit(worker(run))
    wait_for(lambda: (run / "trained").exists())
    os.kill(RunLock(run).holder().owner.pid, signal.SIGUSR2)
    job.wait()
    assert results(run) == ["stopped", "finished"]
    assert (run / "trained").read_text().split() == ["1", "2", "3", "4"]


def test_local_runs_get_their_gpus_or_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    engine = LocalEngine(tmp_path / ".sweep" / "id", ["4,5", None, ""])
    handles = engine.submit([worker(tmp_path / name) for name in "abc"])
    assert engine.free() == 0
    left = list(handles)
    while left:
        time.sleep(0.05)
        done = engine.ended(left)
        left = [handle for handle in left if handle not in done]
    assert engine.free() == 3
    env = [json.loads((tmp_path / name / "environment").read_text()) for name in "abc"]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in env] == ["4,5", "9", ""]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert [e.get("OMP_NUM_THREADS") for e in env] == [None, threads, threads]
    assert "submitit" in engine.log(handles[0]).read_text()
    engine.tidy()
    assert not (tmp_path / ".sweep").exists()


def test_the_script_for_slurm(slurm, tmp_path):
    (slurm / "hold").touch()
    engine = SlurmEngine(
        tmp_path / "w" / ".sweep", parallel=4, max_timeouts=7, partition="gpu", time=2160,
        gpus_per_node=2, cpus_per_task=8, mem="32G",
        additional_parameters={"account": "vision", "exclusive": True},
    )  # fmt: skip
    handles = engine.submit([worker(tmp_path / str(k)) for k in range(6)])
    assert handles == [f"17_{k}" for k in range(6)]
    script = (tmp_path / "w" / ".sweep" / "17_submission.sh").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in script.splitlines() if "#SBATCH" in line}
    jobs = tmp_path / "w" / ".sweep"
    assert flags == {
        "account=vision", "array=0-5%4", "cpus-per-task=8", "exclusive", "gpus-per-node=2",
        "job-name=vfm_ss-sweep", "mem=32G", "nodes=1", "open-mode=append",
        f"output={jobs}/%A_%a_0_log.out", "partition=gpu", "requeue", "signal=USR2@90",
        "time=2160", "wckey=submitit",
    }  # fmt: skip
    assert "\nsrun --unbuffered " in script
    assert engine.ended(handles) == []
    assert "scancel 17" in engine.stop(handles)
    for name in list((slurm / "queue").iterdir())[:2]:
        name.unlink()
    assert len(engine.ended(handles)) == 2
    for name in (slurm / "queue").iterdir():
        name.unlink()


def test_slurm_options_that_it_refuses_are_named(slurm, tmp_path):
    engine = SlurmEngine(tmp_path / "w", None, 1, partition="full", time=5)
    with pytest.raises(ValueError, match=r"Slurm refuses the jobs: .*invalid partition") as error:
        engine.submit([worker(tmp_path / "run")])
    assert "\n" not in str(error.value)


def test_without_slurm_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs sbatch and srun, which are not in PATH"):
        SlurmEngine(tmp_path, None, 1, time=5)


@pytest.mark.slow
def test_a_sweep_on_slurm(slurm, sweep):
    process = sweep(RUNS, "run", *SLURM, "--retry-seconds", "0", seconds=0.5)
    folder = Path("work_dirs/a/seed0")
    wait_for(lambda: (folder / "trained").exists())
    os.kill(RunLock(folder).holder().owner.pid, signal.SIGUSR2)  # as before a time limit
    out = end(process, 0)
    assert "3 runs: 3 done" in out
    assert results(folder) == ["stopped", "finished"]
    assert (folder / "trained").read_text().split() == ["1", "2", "3", "4"]
    assert results("work_dirs/b/seed0") == ["failed", "finished"]
    assert read_journal(folder).job == "17_0"


@pytest.mark.slow
def test_a_sweep_on_slurm_need_not_be_waited_for(slurm, sweep):
    (slurm / "hold").touch()
    out = end(sweep(RUNS[:1], "run", *SLURM, "--no-wait"), 3)
    assert "submitted: a seed 0" in out
    assert "a seed 0: submitted as Slurm job 17" in out
    again = sweep(RUNS[:1], "run", *SLURM)
    time.sleep(1)
    (slurm / "hold").unlink()
    out = end(again, 0)
    assert "waits in Slurm's queue already: a seed 0" in out
    assert len(list((slurm / "done").iterdir())) == 1, "it was submitted once"
    assert results("work_dirs/a/seed0") == ["finished"]


@pytest.mark.slow
def test_ctrl_c_leaves_slurm_jobs_alone(slurm, sweep):
    process = sweep(RUNS[:1], "run", *SLURM, seconds=0.5)
    wait_for(lambda: Path("work_dirs/a/seed0/trained").exists())
    process.send_signal(signal.SIGINT)
    out = end(process, 130)
    assert "to cancel them: scancel 17" in out
    wait_for(lambda: not list((slurm / "queue").iterdir()))
    assert results("work_dirs/a/seed0") == ["finished"]


def test_a_training_that_slurm_ends_has_not_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setattr("vfm_ss.sweep.worker._SLURM_KILL_SECONDS", 0.1)
    run = tmp_path / "run"
    assert worker(run, "term-once", retries=0)() == "finished"
    assert results(run) == ["stopped", "finished"]
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    other = tmp_path / "other"
    assert worker(other, "term-once", retries=0)() == "failed"
    assert read_journal(other).error == "killed by SIGTERM"


def test_an_attempt_that_slurms_requeue_cut_off_has_not_failed(tmp_path, monkeypatch):
    for restarts, expected in (("1", "stopped"), ("0", "failed")):
        run = tmp_path / restarts
        job = worker(run)
        Journal("a", 0, "id", 3, attempts=[Attempt("id", 1.0)]).write(run)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        assert job() == "finished"
        assert results(run) == [expected, "finished"]

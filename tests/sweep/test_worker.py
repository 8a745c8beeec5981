"""One run's worker, in this process and under submitit's executors, and its slots."""

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from vfm_ss.run_lock import RUN_LOCK, SWEEP_LOCK, RunLock, holder, run_holder
from vfm_ss.sweep import worker as module
from vfm_ss.sweep.journal import Attempt, Journal, read_journal
from vfm_ss.sweep.local import LocalSweep
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.worker import Rules, Worker

submitit = pytest.importorskip("submitit")

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))


def planned(folder, fault="none"):
    command = (sys.executable, str(HERE / "stand_in.py"), str(folder), "a", "0", fault)
    return PlannedRun("a", 0, folder, command)


def worker(folder, fault="none", **rules):
    folder.mkdir(parents=True)
    return Worker(planned(folder, fault), Rules(retry_seconds=0, **rules), "id", str(folder))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def results(folder):
    return [attempt.result for attempt in read_journal(folder).attempts]


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [("none", "finished", ["finished"]), ("crash-once", "finished", ["failed", "finished"]),
     ("crash", "failed", ["failed"] * 2), ("quit", "failed", ["failed"])],
)  # fmt: skip
def test_a_worker_in_submitits_debug_executor(fault, outcome, attempts, tmp_path):
    run = tmp_path / "run"
    job = submitit.DebugExecutor(tmp_path / "jobs").submit(worker(run, fault, retries=1))
    assert job.result() == outcome
    assert results(run) == attempts
    assert run_holder(run) is None


@pytest.mark.parametrize("name", [RUN_LOCK, SWEEP_LOCK])
def test_a_worker_leaves_a_locked_run_alone(tmp_path, name):
    job = worker(tmp_path / "run")
    lock = RunLock(tmp_path / "run", name)
    lock.acquire()
    assert job() == "locked"
    assert not (tmp_path / "run" / "trained").exists()
    assert read_journal(tmp_path / "run") is None
    assert holder(tmp_path / "run" / name) is not None


def test_a_training_by_hand_that_was_faster_is_no_failure(tmp_path, monkeypatch):
    run = tmp_path / "run"
    job = worker(run, retries=0)
    lock = RunLock(run)
    attempt = job._attempt
    monkeypatch.setattr(job, "_attempt", lambda number: lock.acquire() or attempt(number))
    assert job() == "locked"
    assert results(run) == ["stopped"]
    assert read_journal(run).error is None
    assert not (run / "trained").exists(), "the work dir was left alone"
    assert holder(run / RUN_LOCK) is not None


def test_submitits_local_executor_requeues_a_preempted_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.4")
    run = tmp_path / "run"
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    executor.update_parameters(timeout_min=60)
    job = executor.submit(worker(run))
    wait_for(lambda: (run / "trained").exists())
    os.kill(holder(run / SWEEP_LOCK).pid, signal.SIGUSR2)
    job.wait()
    assert results(run) == ["stopped", "finished"]
    assert (run / "trained").read_text().split() == ["1", "2", "3", "4"]


def test_local_runs_get_their_gpus_or_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    monkeypatch.setenv("STAND_IN_SECONDS", "0.3")  # all three at a time
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    said = []
    LocalSweep(
        [planned(tmp_path / n) for n in "abc"], ["4,5", None, ""], Rules(), said.append
    ).wait()
    env = [json.loads((tmp_path / name / "environment").read_text()) for name in "abc"]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in env] == ["4,5", "9", ""]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert [e.get("OMP_NUM_THREADS") for e in env] == [None, threads, threads]
    assert said[:4] == ["to train: 3 runs, 3 at a time"] + ["started: a seed 0"] * 3
    assert [line.partition(" (")[0] for line in said[4:]] == ["done: a seed 0, mIoU 50.00"] * 3


def test_a_slot_is_used_again_and_what_is_left_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    LocalSweep([planned(tmp_path / n) for n in "abc"], ["7"], Rules(), said.append).wait()
    done = [line for line in said if line.startswith("done")]
    assert [re.search(r"\(\d left, about 00:0\d:\d\d\)", line) is None for line in done] == [
        0,
        0,
        1,
    ]
    assert [re.findall(r"\((\d) left", line) for line in done] == [["2"], ["1"], []]
    for name in "abc":
        env = json.loads((tmp_path / name / "environment").read_text())
        assert env["CUDA_VISIBLE_DEVICES"] == "7"


def test_a_training_that_does_not_react_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    run = tmp_path / "run"
    job = worker(run, "stop")
    thread = threading.Thread(target=job)
    thread.start()
    wait_for((run / "happened").exists)
    pid = holder(run / RUN_LOCK).pid
    job.stop()
    thread.join()
    assert not Path(f"/proc/{pid}").exists()
    assert results(run) == ["stopped"]
    assert run_holder(run) is None


def test_a_training_that_slurm_ends_has_not_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(module, "_SLURM_KILL_SECONDS", 0.1)
    before = signal.getsignal(signal.SIGTERM)
    run = tmp_path / "run"
    assert worker(run, "term-once", retries=0)() == "finished"
    signal.signal(signal.SIGTERM, before)
    assert results(run) == ["stopped", "finished"]
    assert read_journal(run).job == "17"
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    other = tmp_path / "other"
    assert worker(other, "term-once", retries=0)() == "failed"
    assert read_journal(other).error == "killed by SIGTERM"


def test_an_attempt_that_slurms_requeue_cut_off_has_not_failed(tmp_path, monkeypatch):
    for restarts, expected in (("1", "stopped"), ("0", "failed")):
        run = tmp_path / restarts
        job = worker(run)
        Journal("a", 0, attempts=[Attempt("id", 1.0)]).write(run)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        assert job() == "finished"
        assert results(run) == [expected, "finished"]

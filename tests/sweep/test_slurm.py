"""Sweeps on Slurm, with a stand-in for its commands."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vfm_ss.run_lock import SWEEP_LOCK, holder
from vfm_ss.sweep.journal import read_journal
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.slurm import SlurmSweep
from vfm_ss.sweep.worker import Rules

pytest.importorskip("submitit")

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


def a_sweep(tmp_path, count, said, **parameters):
    runs = [PlannedRun("a", k, tmp_path / f"w/a/seed{k}", ("true",)) for k in range(count)]
    return SlurmSweep(runs, Rules(), said.append, tmp_path / "w" / ".sweep", 7, **parameters)


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


def test_the_script_for_slurm(slurm, tmp_path):
    (slurm / "hold").touch()
    said = []
    sweep = a_sweep(
        tmp_path, 6, said, array_parallelism=4, partition="gpu", time=2160,
        gpus_per_node=2, cpus_per_task=8, mem="32G",
        additional_parameters={"account": "vision", "exclusive": True},
    )  # fmt: skip
    sweep.submit()
    assert said == [f"submitted: a seed {k}" for k in range(6)]
    folders = [tmp_path / f"w/a/seed{k}" for k in range(6)]
    assert [read_journal(folder).job for folder in folders] == [f"17_{k}" for k in range(6)]
    jobs = tmp_path / "w" / ".sweep"
    script = (jobs / "17_submission.sh").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in script.splitlines() if "#SBATCH" in line}
    assert flags == {
        "account=vision", "array=0-5%4", "cpus-per-task=8", "exclusive", "gpus-per-node=2",
        "job-name=vfm_ss-sweep", "mem=32G", "nodes=1", "open-mode=append",
        f"output={jobs}/%A_%a_0_log.out", "partition=gpu", "requeue", "signal=USR2@90",
        "time=2160", "wckey=submitit",
    }  # fmt: skip
    assert "\nsrun --unbuffered " in script
    assert "scancel 17" in sweep.advice()
    for name in list((slurm / "queue").iterdir())[:2]:
        name.unlink()
    said.clear()
    sweep.submit()
    assert (
        sorted(line.partition(":")[0] for line in said)
        == ["submitted"] * 2 + ["waits in Slurm's queue already"] * 4
    )
    for name in (slurm / "queue").iterdir():
        name.unlink()
    sweep.wait()


def test_slurm_options_that_it_refuses_are_named(slurm, tmp_path):
    sweep = a_sweep(tmp_path, 1, [], partition="full", time=5)
    with pytest.raises(ValueError, match=r"Slurm refuses the jobs: .*invalid partition") as error:
        sweep.submit()
    assert "\n" not in str(error.value)


def test_without_slurm_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs sbatch and srun, which are not in PATH"):
        a_sweep(tmp_path, 1, [], time=5)


@pytest.mark.slow
def test_a_sweep_on_slurm(slurm, sweep):
    process = sweep(RUNS, "run", *SLURM, "--retry-seconds", "0", seconds=0.5)
    folder = Path("work_dirs/a/seed0")
    wait_for(lambda: (folder / "trained").exists())
    os.kill(holder(folder / SWEEP_LOCK).pid, signal.SIGUSR2)  # as before a time limit
    out = end(process, 0)
    assert "3 runs: 3 done" in out
    assert results(folder) == ["stopped", "finished"]
    assert (folder / "trained").read_text().split() == ["1", "2", "3", "4"]
    assert results("work_dirs/b/seed0") == ["failed", "finished"]
    assert read_journal(folder).job == "17_0"


@pytest.mark.slow
def test_a_killed_worker_leaves_its_training_and_loses_nothing(slurm, sweep):
    process = sweep(RUNS[:1], "run", *SLURM, seconds=0.5)
    folder = Path("work_dirs/a/seed0")
    wait_for(lambda: (folder / "trained").exists())
    os.kill(holder(folder / SWEEP_LOCK).pid, signal.SIGKILL)
    assert "1 run: 1 done" in end(process, 0)
    assert (folder / "trained").read_text().split() == ["1", "2", "3", "4"]


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

"""Sweeps of stand-ins through the command line: faults, interruptions, several sweeps at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfm_ss.protocol.runs import collect
from vfm_ss.run_lock import RUN_LOCK, SWEEP_LOCK, holder, run_holder
from vfm_ss.sweep.journal import read_journal

pytestmark = pytest.mark.slow

QUICK = ("--retry-seconds", "0", "--configs", "runs.json")


def end(process, status):
    out = process.communicate(timeout=120)[0]
    assert process.returncode == status, out
    return out


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def trained(name, seed=0):
    """Return the steps that were trained, over all attempts."""
    return [int(x) for x in Path("work_dirs", name, f"seed{seed}", "trained").read_text().split()]


def results(name, seed=0):
    journal = read_journal(Path("work_dirs", name, f"seed{seed}"))
    return [attempt.result for attempt in journal.attempts]


def nothing_is_left():
    held = [path for path in Path("work_dirs").glob("*/*") if run_holder(path)]
    return not held and not list(Path("work_dirs").rglob("*.tmp"))


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


FAULTY = [
    ["plain", 0, "none"],
    ["crash", 0, "crash-once"],
    ["always", 0, "crash"],
    ["kill", 0, "kill-once"],
    ["hang", 0, "hang-once"],
    ["quit", 0, "quit"],
    *[["plain", seed, "none"] for seed in range(1, 7)],
]


def test_a_sweep_with_faults_ends_by_itself(sweep):
    args = (*QUICK, "--jobs", "3", "--retries", "2", "--hang-minutes", "0.04")
    out = end(sweep(FAULTY, "run", *args), 1)
    for name in ("plain", "crash", "kill", "hang"):
        assert trained(name) == [1, 2, 3, 4], "resumed from the checkpoint, no step twice"
    assert "12 runs: 10 done, 2 failed" in out
    assert results("crash") == ["failed", "finished"]
    assert results("kill") == ["failed", "finished"]
    assert results("hang") == ["failed", "finished"]
    assert results("always") == ["failed"] * 3
    assert results("quit") == ["failed"], "trying again would end in the same way"
    assert results("plain") == ["finished"]

    assert "attempt 1 of 3 failed: kill seed 0: killed by SIGKILL" in out
    assert "attempt 1 of 3 failed: hang seed 0: hung: wrote nothing for 0.04 minutes" in out
    assert "always seed 0 failed: RuntimeError: the injected crash of always" in out
    assert "log: work_dirs/always/seed0/train.log" in out
    assert "quit seed 0 failed: ended without a finished record.json" in out
    assert "\x1b" not in out, "a log cannot steer the terminal"

    # The hung training ignored SIGTERM and had a child; neither lives on.
    assert not lives(int(Path("work_dirs/hang/seed0/child").read_text()))
    assert nothing_is_left()
    runs, skipped = collect(["work_dirs"])
    assert len(runs) == 10
    assert skipped == []

    # Again: what is done is left alone, what had failed gets all its attempts again.
    fixed = [[name, seed, "none"] for name, seed, _ in FAULTY]
    out = end(sweep(fixed, "run", *args), 0)
    assert out.count("finished before: ") == 10
    assert trained("always") == [1, 2, 3, 4]
    assert results("always") == ["failed"] * 3 + ["finished"]
    assert "12 runs: 12 done" in out
    end(sweep(fixed, "status", "work_dirs"), 0)


def test_two_sweeps_share_the_runs(sweep):
    runs = [["a", seed, "none"] for seed in range(4)]
    args = ("run", *QUICK, "--jobs", "2")
    both = [sweep(runs, *args, seconds=0.3) for _ in range(2)]
    for process in both:
        assert "4 runs: 4 done" in end(process, 0)
    for seed in range(4):
        assert trained("a", seed) == [1, 2, 3, 4]
        assert results("a", seed) == ["finished"]


def test_ctrl_c_ends_the_trainings_and_the_same_command_goes_on(sweep):
    runs = [["a", 0, "none"], ["b", 0, "none"], ["c", 0, "none"]]
    process = sweep(runs, "run", *QUICK, "--jobs", "2", seconds=0.5)
    wait_for(lambda: all(Path(f"work_dirs/{n}/seed0/trained").exists() for n in "ab"))
    trainers = [read_journal(f"work_dirs/{n}/seed0").attempts[-1].pid for n in "ab"]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out = end(process, 130)
    assert "interrupted; the same command goes on from here" in out
    assert "Traceback" not in out
    assert not any(map(lives, trainers))
    assert nothing_is_left()
    assert results("a") == ["stopped"]
    out = end(sweep(runs, "status", "work_dirs"), 3)
    assert "3 runs: 1 missing, 2 stopped" in out

    end(sweep(runs, "run", *QUICK, "--jobs", "2"), 0)
    assert trained("a") == trained("b") == [1, 2, 3, 4]
    assert results("a") == ["stopped", "finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_a_training_that_does_not_react(sweep, number):
    process = sweep([["a", 0, "stop"]], "run", *QUICK)
    wait_for(lambda: Path("work_dirs/a/seed0/happened").exists())
    trainer = holder(Path("work_dirs/a/seed0", RUN_LOCK)).pid
    process.send_signal(number)
    assert "interrupted" in end(process, 130)
    assert not lives(trainer)
    assert nothing_is_left()


def test_a_killed_training_is_replaced(sweep):
    process = sweep([["a", 0, "none"]], "run", *QUICK, seconds=0.4)
    wait_for(lambda: Path("work_dirs/a/seed0/trained").exists())
    os.kill(holder(Path("work_dirs/a/seed0", RUN_LOCK)).pid, signal.SIGKILL)
    out = end(process, 0)
    assert "attempt 1 of 3 failed: a seed 0: killed by SIGKILL" in out
    assert trained("a") == [1, 2, 3, 4]
    assert results("a") == ["failed", "finished"]


def test_a_training_by_hand_is_waited_for(sweep, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    folder = Path("work_dirs/a/seed0")
    folder.mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).with_name("stand_in.py")), str(folder)]
    by_hand = subprocess.Popen([*command, "a", "0", "none"], stdout=subprocess.DEVNULL)
    wait_for(lambda: (folder / "trained").exists())
    process = sweep([["a", 0, "none"], ["b", 0, "none"]], "run", *QUICK)
    out = end(process, 0)
    by_hand.wait()
    assert f"trained by another: a seed 0, process {by_hand.pid} on " in out
    assert trained("a") == trained("b") == [1, 2, 3, 4]
    assert read_journal(folder).attempts == []


def test_what_a_killed_sweep_left_running_is_not_trained_again(sweep):
    runs = [["a", 0, "none"], ["b", 0, "none"]]
    process = sweep(runs, "run", *QUICK, seconds=0.4)
    wait_for(lambda: Path("work_dirs/a/seed0/trained").exists())
    trainer = holder(Path("work_dirs/a/seed0", RUN_LOCK)).pid
    process.kill()
    process.wait()
    assert holder(Path("work_dirs/a/seed0", SWEEP_LOCK)) is None
    out = end(sweep(runs, "run", *QUICK), 0)
    assert f"trained by another: a seed 0, process {trainer} on " in out
    assert trained("a") == trained("b") == [1, 2, 3, 4]
    assert results("a") == ["finished"]


def test_a_training_that_outlived_its_sweep_and_crashed_is_trained_on(sweep):
    runs = [["a", 0, "crash-once"]]
    process = sweep(runs, "run", *QUICK, seconds=0.5)
    wait_for(lambda: Path("work_dirs/a/seed0/trained").exists())
    process.kill()
    process.wait()
    out = end(sweep(runs, "run", *QUICK), 0)
    assert "trained by another: a seed 0, process " in out
    assert trained("a") == [1, 2, 3, 4]
    assert results("a") == ["failed", "finished"]


def test_sweeps_that_are_killed_at_random_train_nothing_twice(sweep):
    runs = [["a", seed, "none"] for seed in range(6)]
    args, chance = ("run", *QUICK, "--jobs", "2"), random.Random(0)
    sweeps = [sweep(runs, *args, seconds=0.3) for _ in range(2)]
    for _ in range(8):
        time.sleep(chance.random() * 1.5)
        victim = sweeps.pop(chance.randrange(2))
        victim.kill()  # its trainings go on
        victim.wait()
        sweeps.append(sweep(runs, *args, seconds=0.3))
    for process in sweeps:
        assert "6 runs: 6 done" in end(process, 0)
    for seed in range(6):
        assert trained("a", seed) == [1, 2, 3, 4]
    assert nothing_is_left()

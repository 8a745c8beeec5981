"""The lock with real processes: they race, die, and their ids are given again."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from vfm_ss.sweep import lock as module
from vfm_ss.sweep.lock import LOCK_NAME, STALE_SECONDS, RunLock, process_start

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}


@contextmanager
def takers(folder, count):
    """Start processes that all try at the same moment; gives them and their answers."""
    go = folder / "go"
    command = [sys.executable, str(HERE / "lock_taker.py"), str(folder), str(go)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV)
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        time.sleep(1)  # all of them wait by now; if not, the test is only less strict
        go.touch()
        yield processes, [process.stdout.readline().strip() for process in processes]
    finally:
        for process in processes:
            process.stdin.close()
            process.wait()
        go.unlink()


def rewrite(folder, age=0.0, **changes):
    """Change what a lock file says, and when its owner last touched it."""
    path = folder / LOCK_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    os.utime(path, (time.time() - age,) * 2)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_is_given_once_and_given_back(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    assert first.acquire() is None
    holder = second.acquire()
    assert holder.owner.pid == os.getpid()
    assert str(holder.owner).startswith(f"process {os.getpid()} on ")
    assert first.beat()
    assert not second.beat()
    second.release()  # not its own: no effect
    assert first.holder() is not None
    first.release()
    assert files(tmp_path) == []
    assert second.acquire() is None
    second.release()


def test_one_of_many_takers_wins(tmp_path):
    with takers(tmp_path, 8) as (_, answers):
        assert sorted(answers) == ["held"] + ["refused"] * 7


def test_one_of_many_takers_inherits_a_dead_owners_lock(tmp_path):
    with takers(tmp_path, 1) as (processes, answers):
        assert answers == ["held"]
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert files(tmp_path) == ["go", LOCK_NAME]
    with takers(tmp_path, 8) as (_, answers):
        assert sorted(answers) == ["held"] + ["refused"] * 7
        assert files(tmp_path) == ["go", LOCK_NAME], "nothing of the dead owner is left"


def test_never_two_holders_while_processes_are_killed_at_random(tmp_path):
    command = [sys.executable, str(HERE / "lock_torture.py"), str(tmp_path)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120)
    held, killed, violations = map(int, done.stdout.split())
    assert violations == 0
    assert held > 50, "the lock was inherited again and again"
    assert killed > 50


def test_a_reused_process_id_is_not_the_owner(tmp_path):
    assert RunLock(tmp_path).acquire() is None
    rewrite(tmp_path, start="1")  # this process did not start with the system
    assert RunLock(tmp_path).holder() is None
    assert RunLock(tmp_path).acquire() is None


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(os.getpid()) is not None


def test_an_owner_elsewhere_is_dead_when_its_heartbeat_is_stale(tmp_path):
    first = RunLock(tmp_path)
    assert first.acquire() is None
    rewrite(tmp_path, machine="another", host="node7", age=STALE_SECONDS - 30)
    assert RunLock(tmp_path).acquire().owner.host == "node7"
    rewrite(tmp_path, age=STALE_SECONDS + 30)
    assert RunLock(tmp_path).acquire() is None
    assert not first.beat(), "the old owner notices that it has lost the lock"
    first.release()
    assert RunLock(tmp_path).holder() is not None, "and does not give back another's"


def test_a_living_owner_here_needs_no_heartbeat(tmp_path):
    assert RunLock(tmp_path).acquire() is None
    rewrite(tmp_path, age=10 * STALE_SECONDS)
    assert RunLock(tmp_path).acquire() is not None


def test_slurm_ends_a_job_before_it_starts_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert RunLock(tmp_path).acquire() is None
    rewrite(tmp_path, machine="another")
    assert RunLock(tmp_path).acquire() is not None, "the same incarnation of the job"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert RunLock(tmp_path).acquire() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b'{"pid": -1}', b"\xff\xfe", b"[" * 50000, b'{"pid": 1e400}'],
)
def test_a_damaged_lock_counts_while_it_is_fresh(tmp_path, content):
    path = tmp_path / LOCK_NAME
    path.write_bytes(content)
    assert RunLock(tmp_path).acquire().owner is None
    os.utime(path, (time.time() - STALE_SECONDS - 30,) * 2)
    assert RunLock(tmp_path).acquire() is None
    assert files(tmp_path) == [LOCK_NAME]


def test_a_heir_that_died_before_it_moved_in_can_be_succeeded(tmp_path, monkeypatch):
    monkeypatch.setattr(RunLock, "_move_in", lambda *args: None)
    for _ in range(4):  # a chain of dead owners
        assert RunLock(tmp_path).acquire() is None
        for path in tmp_path.iterdir():
            data = json.loads(path.read_text())
            assert data["pid"] == os.getpid()
        monkeypatch.setattr(module, "process_start", lambda pid: "later")
        monkeypatch.setattr(module.Owner, "this_process", _with_start(module.Owner, "now"))
    monkeypatch.undo()
    assert len(files(tmp_path)) == 4
    assert RunLock(tmp_path).acquire() is None
    assert files(tmp_path) == [LOCK_NAME]


def _with_start(cls, start):
    me = cls.this_process()
    return classmethod(lambda cls: cls(me.host, me.machine, me.pid, start))


def test_something_else_in_the_locks_place_is_refused(tmp_path):
    (tmp_path / LOCK_NAME).mkdir()
    assert RunLock(tmp_path).acquire() is not None
    os.utime(tmp_path / LOCK_NAME, (time.time() - STALE_SECONDS - 30,) * 2)
    with pytest.raises(ValueError, match=r"sweep\.lock: not a file; delete it"):
        RunLock(tmp_path).acquire()


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert RunLock(tmp_path).acquire() is None
    assert RunLock(tmp_path).acquire() is not None
    rewrite(tmp_path, start="1")
    assert RunLock(tmp_path).acquire() is None
    assert files(tmp_path) == [LOCK_NAME]

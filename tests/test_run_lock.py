"""The lock of a work dir with real processes: they race, fork, and are killed."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from vfm_ss import run_lock
from vfm_ss.run_lock import (
    RUN_LOCK,
    SWEEP_LOCK,
    Holder,
    RunLock,
    RunLockedError,
    hold_run,
    holder,
    release_run,
    run_holder,
)

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE.parent)}


@contextmanager
def takers(folder, count, *args):
    """Start processes that all try at the same moment; gives them and their answers."""
    go = folder / "go"
    command = [sys.executable, str(HERE / "lock_taker.py"), str(folder), str(go), *args]
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


def test_a_lock_is_given_once_and_given_back(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    found = holder(tmp_path / RUN_LOCK)
    assert (found.pid, found.host) == (os.getpid(), socket.gethostname())
    expected = rf"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()} since 2"
    with pytest.raises(RunLockedError, match=expected) as error:
        second.acquire(0)
    assert "\n" not in str(error.value)
    second.release()  # not its own: no effect
    assert holder(tmp_path / RUN_LOCK) == found, "those who were refused changed nothing"
    first.release()
    assert holder(tmp_path / RUN_LOCK) is None
    second.acquire(0)
    second.release()


def test_a_training_and_a_sweep_hold_locks_of_their_own(tmp_path):
    training, sweep = RunLock(tmp_path), RunLock(tmp_path, SWEEP_LOCK)
    sweep.acquire()
    assert run_holder(tmp_path).pid == os.getpid()
    training.acquire()
    sweep.release()
    assert run_holder(tmp_path).pid == os.getpid()
    training.release()
    assert run_holder(tmp_path) is None


def test_one_of_many_takers_wins_and_a_dead_ones_lock_is_free_at_once(tmp_path):
    with takers(tmp_path, 8) as (processes, answers):
        assert sorted(answers) == ["held"] + ["refused"] * 7
        winner = processes[answers.index("held")]
        assert holder(tmp_path / RUN_LOCK).pid == winner.pid
        winner.send_signal(signal.SIGKILL)
        winner.wait()
        assert holder(tmp_path / RUN_LOCK) is None
    with takers(tmp_path, 8) as (_, answers):
        assert sorted(answers) == ["held"] + ["refused"] * 7


def test_a_child_does_not_hold_the_lock_on(tmp_path):
    with takers(tmp_path, 1, "fork") as (processes, answers):
        assert answers == ["held"]
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        RunLock(tmp_path).acquire(0)


def test_never_two_holders_while_processes_are_killed_at_random(tmp_path):
    command = [sys.executable, str(HERE / "lock_storm.py"), str(tmp_path)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120)
    held, killed, violations = map(int, done.stdout.split())
    assert violations == 0
    assert held > 50, "the lock was taken again and again"
    assert killed > 50


def test_looking_does_not_refuse_a_training_that_starts(tmp_path):
    looker = RunLock(tmp_path)
    looker.acquire()
    looker.release()
    code = "import sys; from vfm_ss.run_lock import *\nwhile True: holder(sys.argv[1])"
    path = str(tmp_path / RUN_LOCK)
    process = subprocess.Popen([sys.executable, "-c", code, path], env=ENV)
    try:
        for _ in range(20):
            lock = RunLock(tmp_path)
            lock.acquire()
            lock.release()
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


def test_looking_writes_nothing(tmp_path):
    assert run_holder(tmp_path) is None
    assert run_holder(tmp_path / "nowhere") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b'{"pid": -1}', b"\xff\xfe", b"[" * 4000, b"x" * 10**6,
     b'{"pid": "1", "host": "a", "since": "b"}', b'{"pid": 1, "host": "\\u001b", "since": "b"}',
     b'{"pid": 1, "host": null, "since": "b"}'],
)  # fmt: skip
def test_a_damaged_file_names_nobody_and_the_lock_counts_all_the_same(tmp_path, content):
    path = tmp_path / RUN_LOCK
    path.write_bytes(content)
    assert holder(path) is None
    lock = RunLock(tmp_path)
    lock.acquire()
    path.write_bytes(content)
    assert holder(path) == Holder()
    with pytest.raises(RunLockedError, match="in use by another process; wait"):
        RunLock(tmp_path).acquire(0)
    lock.release()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("elsewhere", path)])
def test_something_else_in_the_locks_place_is_refused(tmp_path, make):
    make(tmp_path / RUN_LOCK)
    assert holder(tmp_path / RUN_LOCK) is None
    with pytest.raises(ValueError, match=r"run\.lock: not a regular file; delete it"):
        RunLock(tmp_path).acquire(0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_training_holds_its_work_dir_until_it_gives_it_back(tmp_path):
    work_dir = tmp_path / "new" / "run"
    hold_run(work_dir)
    hold_run(work_dir / ".." / "run")  # once more, by the same process
    with pytest.raises(RunLockedError):
        RunLock(work_dir).acquire(0)
    release_run(work_dir)
    release_run(work_dir)
    RunLock(work_dir).acquire(0)


def test_where_there_are_no_locks_a_training_says_so_and_a_sweep_is_refused(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="the file system has no locks") as error:
        RunLock(tmp_path, SWEEP_LOCK).acquire(0)
    assert error.value.filename == str(tmp_path / SWEEP_LOCK)
    with pytest.warns(UserWarning, match="nothing keeps a second training out"):
        hold_run(tmp_path)
    release_run(tmp_path)
    assert holder(tmp_path / RUN_LOCK) is None


def test_the_file_says_who_holds_it(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    data = json.loads((tmp_path / RUN_LOCK).read_text())
    assert data.keys() == {"pid", "host", "since"}
    assert isinstance(lock._lock, filelock.FileLock), "never the kind that a crash leaves locked"
    lock.release()

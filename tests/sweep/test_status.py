"""The state of runs, read from made-up work dirs, damaged and hostile ones among them."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from vfm_ss.cli.sweep import main, watch
from vfm_ss.run_lock import RUN_LOCK, SWEEP_LOCK, RunLock
from vfm_ss.sweep.journal import Attempt, Journal
from vfm_ss.sweep.logs import last_error, progress
from vfm_ss.sweep.status import RunState, discover, duration, exit_status, look, table

LINE = (
    "2026/11/21 11:34:36 - mmengine - INFO - Iter(train) [ {}/40000]  base_lr: 1e-4 lr: 1e-5  "
    "eta: {}  time: 0.5  data_time: 0.1  memory: 900  loss: 1.5\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`folder(name, seed, **files)`: make a run's folder; the current folder is above it."""
    monkeypatch.chdir(tmp_path)
    Path("w").mkdir()

    def make(name="a", seed=0, log=None, record=None, journal=None):
        path = Path("w", name, f"seed{seed}")
        path.mkdir(parents=True)
        if log is not None:
            (path / "train.log").write_bytes(log if isinstance(log, bytes) else log.encode())
        if record is not None:
            text = record if isinstance(record, str) else json.dumps(asdict(record))
            (path / "record.json").write_text(text)
        if journal is not None:
            journal.write(path)
        return path

    return make


def a_journal(name="a", seed=0, *results, error=None, job=None):
    attempts = [Attempt("s", 1.0, r, error=error if r == "failed" else None) for r in results]
    gave_up = error if results and results[-1] == "failed" else None
    return Journal(name, seed, job, gave_up, attempts)


def test_a_finished_run_is_done(folder, make_record):
    state = look(folder(record=make_record(miou=47.25, seed=3), journal=a_journal("a", 3)))
    assert (state.state, state.step, state.max_steps, state.miou) == ("done", 40000, 40000, 47.25)
    assert (state.name, state.seed, state.error) == ("a", 3, None)


@pytest.mark.parametrize("name", [RUN_LOCK, SWEEP_LOCK])
def test_a_locked_run_is_running_and_the_log_says_how_far(folder, make_record, name):
    log = LINE.format(50, "1 day, 2:03:04") + LINE.format(4150, "12:03:04") + "something else\n"
    record = make_record(status="running", step=4000, miou=30.0)
    path = folder(log=log, record=record, journal=a_journal("a", 0, "running"))
    lock = RunLock(path, name)
    lock.acquire()
    state = look(path)
    assert (state.state, state.step, state.max_steps) == ("running", 4150, 40000)
    assert (state.eta_seconds, state.miou) == (12 * 3600 + 184, 30.0)
    lock.release()
    state = look(path)
    assert (state.state, state.step, state.eta_seconds) == ("stopped", 4150, None)


def test_a_failed_run_shows_its_error_and_log(folder):
    journal = a_journal("a", 0, "failed", "failed", error="ValueError: no data in data/ade")
    state = look(folder(log="x", journal=journal))
    assert (state.state, state.error, state.attempts) == (
        "failed", "ValueError: no data in data/ade", 2,
    )  # fmt: skip
    assert state.log == "w/a/seed0/train.log"
    text = table([state])
    assert "a seed 0 failed: ValueError: no data in data/ade\n    log: w/a/seed0/train.log" in text


def test_a_planned_run_is_missing(folder):
    assert look(folder(journal=a_journal())).state == "missing"
    assert look("w/nowhere/seed4").state == "missing"
    state = look(folder("b", journal=a_journal("b", job="17_3")))
    assert (state.state, state.note) == ("missing", "submitted as Slurm job 17_3")


def test_a_run_that_no_sweep_started_is_running_while_its_training_holds_the_lock(folder):
    path = folder()
    (path / "20261121_1" / "vis_data").mkdir(parents=True)
    log = path / "20261121_1" / "20261121_1.log"
    log.write_text(LINE.format(100, "0:00:09"))
    lock = RunLock(path)
    lock.acquire()
    (state,) = discover(["w"])
    assert (state.name, state.seed, state.state, state.step) == ("a", 0, "running", 100)
    lock.release()
    assert look(path).state == "stopped"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("{", "record.json: not valid JSON"),
        ("", "record.json: the file is empty"),
        ('{"schema": 99}', "field 'schema' is 99"),
        ("[" * 100000, "record.json: "),
    ],
)
def test_a_damaged_record_is_named_and_the_run_goes_on(folder, text, note):
    state = look(folder(log="x", record=text, journal=a_journal("a", 0, "stopped")))
    assert state.state == "stopped"
    assert note in state.note
    assert "\n" not in state.note


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema": 1}', '{"schema": 1, "attempts": 3}', "null", '{"schema": true}'],
)
def test_a_damaged_journal_is_named(folder, text):
    path = folder(log="x")
    (path / "sweep.json").write_text(text)
    state = look(path)
    assert "w/a/seed0/sweep.json: " in state.note
    assert state.name == "a"


def test_types_in_a_journal_are_checked(folder):
    path = folder(journal=a_journal("a", 0, "failed", error="x"))
    good = json.loads((path / "sweep.json").read_text())
    for key, value in (("seed", "0"), ("name", None), ("seed", True), ("attempts", [3])):
        (path / "sweep.json").write_text(json.dumps({**good, key: value}))
        state = look(path)
        assert "delete the file" in state.note, key
        assert state.state != "failed"


def test_hostile_text_reaches_the_terminal_escaped(folder, capsys):
    journal = a_journal("évil\x1b[2J\nname", 0, "failed", error="\x1b]0;pwned\x07 ünïcode\r\nx")
    folder("évil", log="\x1b[2J", journal=journal)
    assert main(["status", "w"]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\r" not in out
    assert "évil\\x1b[2J\\nname" in out
    assert "ünïcode" in out
    assert main(["status", "w", "--format", "json"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["error"] == "\x1b]0;pwned\x07 ünïcode\r\nx"


def test_named_pipes_do_not_block(folder):
    path = folder(journal=a_journal("a", 0, "stopped"))
    for name in ("record.json", "train.log"):
        os.mkfifo(path / name)
    assert look(path).state == "stopped"
    (path / "sweep.json").unlink()
    for name in ("sweep.json", RUN_LOCK, SWEEP_LOCK):
        os.mkfifo(path / name)
    assert "not a regular file" in look(path).note


def test_the_last_error_of_a_log(tmp_path):
    log = tmp_path / "log"
    first = b"ValueError: of an earlier attempt\n"
    trace = b"Traceback (most recent call last):\n  x\n" * 10000
    coloured = b"\x1b[31mFileNotFoundError: caf\xc3\xa9 \xff\x1b[0m\nwarning: cleaning\n"
    log.write_bytes(first + trace + coloured)
    assert last_error(log) == "FileNotFoundError: café \ufffd"
    log.write_bytes(first + b"only words\n=====\n\n")
    assert last_error(log, len(first)) == "only words"
    log.write_bytes(
        b"[rank1]: RuntimeError: CUDA out of memory\n"
        b"torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
        b"train.py FAILED\n-----\n"
    )
    assert last_error(log) == "[rank1]: RuntimeError: CUDA out of memory"
    log.write_bytes(
        b"ValueError: of an earlier attempt\ntrain.py: error: a.png: damaged\n"
        b"torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
    )
    assert last_error(log) == "train.py: error: a.png: damaged"
    log.write_bytes(b"MyError: " + b"x" * 10**6)
    assert len(last_error(log)) == 500
    log.write_bytes(b"")
    assert last_error(log) == last_error(tmp_path / "nowhere") == ""


def test_progress_of_odd_logs(tmp_path):
    log = tmp_path / "log"
    for text in ("", "Iter(train) [1/", "Iter(train) [x/y]", "\x00" * 1000):
        log.write_text(text)
        assert progress(log) is None
    log.write_text("Iter(train) [ 7/40]  lr: 1\n" + "noise\n" * 20000)
    assert progress(log) is None or progress(log) == (7, 40, None)
    log.write_text("Iter(train) [ 7/40]  lr: 1\nIter(train) [  8/40]  eta: 12 days, 1:00:00  t\n")
    assert progress(log) == (8, 40, 12 * 86400 + 3600)
    assert duration(12 * 86400 + 3600) == "12d 01:00:00"


def test_exit_status_and_counts(folder, make_record, capsys):
    folder("a", record=make_record())
    assert main(["status", "w"]) == 0
    folder("b", journal=a_journal("b"))
    assert main(["status", "w"]) == 3
    folder("c", log="x", journal=a_journal("c", 0, "failed", error="no"))
    assert main(["status", "w"]) == 1
    out = capsys.readouterr().out
    assert "3 runs: 1 done, 1 missing, 1 failed" in out
    assert main(["status", "w", "--format", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["counts"] == {"done": 1, "missing": 1, "stopped": 0, "failed": 1, "other": 0,
                              "running": 0}  # fmt: skip
    assert [run["path"] for run in data["runs"]] == ["w/a/seed0", "w/b/seed0", "w/c/seed0"]


def test_a_grid_shows_what_is_missing(folder, make_record, capsys):
    folder("mae_b16_linear_ade20k", 1, record=make_record("mae", seed=1))
    assert main(["status", "w", "--vfms", "mae", "--settings", "default,probe"]) == 3
    out = capsys.readouterr().out
    assert "6 runs: 1 done, 5 missing" in out
    assert main(["status", "elsewhere", "--vfms", "mae", "--settings", "default"]) == 3
    assert main(["status", "elsewhere"]) == 2
    assert capsys.readouterr().err == "vfm-ss sweep: error: elsewhere: no such folder\n"


def test_no_runs_at_all(folder, capsys):
    assert main(["status", "w"]) == 3
    assert capsys.readouterr().out == "0 runs: none found\n"
    assert exit_status([]) == 3


def test_watching_ends_when_nothing_is_left_to_do(folder, make_record, capsys):
    folder("a", record=make_record())
    assert main(["status", "w", "--watch"]) == 0
    assert "1 run: 1 done" in capsys.readouterr().out


def a_state(state, step):
    return RunState("a", 0, "w/a/seed0", state, step=step, max_steps=200, eta_seconds=61)


@pytest.mark.parametrize("terminal", [True, False])
def test_every_look_is_shown_until_nothing_is_left(capsys, monkeypatch, terminal):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    looks = iter([[a_state("running", 50)], [a_state("running", 120)], [a_state("done", 200)]])
    assert watch(lambda: next(looks), table, 0.01) == [a_state("done", 200)]
    out = capsys.readouterr().out
    assert "50/200  00:01:01" in out
    assert "120/200" in out
    assert out.count("1 run: ") == 3
    assert out.count("\x1b[2J") == (3 if terminal else 0), "a file gets no control sequences"


def test_ctrl_c_ends_watching():
    looks = [[a_state("running", 50)]]

    def states():
        if not looks:
            raise KeyboardInterrupt
        return looks.pop()

    assert watch(states, table, 0.01) == [a_state("running", 50)]


def test_watching_nothing_ends(capsys):
    assert watch(lambda: [], table, 0.01) == []


def test_folders_reached_twice_count_once(folder, make_record):
    folder("a", record=make_record())
    os.symlink("..", "w/a/loop")
    os.symlink("a", "w/again")
    assert len(discover(["w", "w/a"])) == 1

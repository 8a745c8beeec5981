"""Work dirs that somebody filled to stop, mislead or exhaust who reads them."""

import json
import os
import socket
import subprocess
import sys

import pytest

from vfm_ss.found_files import read, read_json, tail
from vfm_ss.protocol.records import write_record
from vfm_ss.protocol.runs import collect
from vfm_ss.run_lock import RUN_LOCK, SWEEP_LOCK
from vfm_ss.sweep.journal import JOURNAL_NAME
from vfm_ss.sweep.logs import LOG_NAME
from vfm_ss.sweep.status import discover

NAME = "mae_b16_linear_ade20k"
CONFIG = "train_cfg = dict(max_iters=10)\n"
SCORES = '{"mIoU": 40.0, "step": 10}\n'


def plain(root, scores=SCORES, config=CONFIG):
    """Write a work dir of plain mmengine and return its log and its config."""
    vis = root / NAME / "20260101_000000" / "vis_data"
    vis.mkdir(parents=True)
    log, dumped = vis / "scalars.json", root / NAME / f"{NAME}.py"
    log.write_text(scores)
    dumped.write_text(config)
    return log, dumped


def replaced(path, kind):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # its address is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)


KINDS = ("pipe", "device", "socket", "folder", "loop")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_log_or_config_that_is_no_file_is_named(which, kind, tmp_path):
    path = plain(tmp_path)[which]
    assert [run.miou for run in collect([tmp_path])[0]] == [40.0]
    replaced(path, kind)
    runs, skipped = collect([tmp_path])
    assert runs == []
    (one,) = skipped
    assert f"{path}: " in one.reason
    assert "not a regular file" in one.reason or "cannot be read: Too many levels" in one.reason


@pytest.mark.parametrize("kind", KINDS)
def test_status_reads_no_pipe_and_no_device(kind, tmp_path, make_record):
    for name in ("record.json", JOURNAL_NAME, RUN_LOCK, SWEEP_LOCK, LOG_NAME):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        write_record(folder / "record.json", make_record(status="running", step=70))
        replaced(folder / name, kind)
    states = {state.name: state for state in discover([tmp_path])}
    assert len(states) == 2, "the config's name, and the folder's where no record says it"
    assert {state.state for state in discover([tmp_path])} == {"stopped", "missing"}
    assert "record.json: " in states["with record.json"].note


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1", '"40"', "true", "[1]", "null"])
@pytest.mark.parametrize("where", ["mIoU", "step", "max_iters"])
def test_what_is_no_number_ends_no_ranking(where, number, tmp_path, make_record):
    (tmp_path / "sound").mkdir()
    write_record(tmp_path / "sound" / "record.json", make_record(miou=50.0))
    values = {"mIoU": "40.0", "step": "10", "max_iters": "10"} | {where: number}
    scores = f'{{"mIoU": {values["mIoU"]}, "step": {values["step"]}}}\n'
    plain(tmp_path, scores, f"train_cfg = dict(max_iters={values['max_iters']})\n")
    runs, skipped = collect([tmp_path])
    assert [run.miou for run in runs] == [50.0]
    (one,) = skipped
    assert one.path == str(tmp_path / NAME)
    assert len(one.reason) < 400


def test_a_damaged_line_with_a_score_is_not_passed_over(tmp_path):
    cut = '{"mIoU": 45.0, "st'
    log, _ = plain(tmp_path, SCORES + cut)
    assert [run.miou for run in collect([tmp_path])[0]] == [40.0], "a killed run's last line"
    log.write_text(f"{cut}\n{SCORES}")
    (one,) = collect([tmp_path])[1]
    assert one.reason.endswith("scalars.json: line 1 holds a mIoU, but is damaged")


def test_the_seed_is_that_of_the_innermost_folder(tmp_path):
    plain(tmp_path / "seed42_runs" / "seed1")
    assert collect([tmp_path])[0][0].seed == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "holds 'c' twice in one object"),
        ('{"a": 1, "a": 1}', "holds 'a' twice in one object"),
        ("[" * 10**6, "JSON nested too deeply"),
        ("-Infinity", "holds -Infinity"),
        (" ", "the file is empty"),
        ("1" * 10**5, "Exceeds the limit"),
        (" " * 101 + "1", "102 bytes, too big, expected at most 101"),
    ],
)
def test_json_that_is_not_plain_is_refused(text, reason, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_json(path, 101 if "102" in reason else 2**24)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_of_the_kernel_is_read_up_to_the_limit():
    with pytest.raises(ValueError, match="too big"):  # it says that it has 0 bytes
        read("/proc/self/smaps", 100)
    assert tail("/proc/self/comm", 100)


def test_a_log_without_an_end_of_line_is_refused(tmp_path):
    log, _ = plain(tmp_path, " " * 2**21 + SCORES)
    assert "has a line of more than" in collect([tmp_path])[1][0].reason
    with open(log, "wb") as file:
        file.truncate(2**40)  # takes no space
    assert "too big" in collect([tmp_path])[1][0].reason


def test_deep_json_in_a_record_is_refused_wherever_it_stands(tmp_path, make_record):
    path = tmp_path / "record.json"
    write_record(path, make_record())
    data = json.loads(path.read_text())
    for depth in (9, 100, 300, 900, 990, 10**5):
        deep = "[" * depth + "]" * depth
        for field in ("config", "iou", "name", "versions"):
            text = json.dumps({**data, field: "DEEP"}).replace('"DEEP"', f'{{"a": {deep}}}')
            path.write_text(text)
            runs, (one,) = collect([tmp_path])
            assert runs == []
            assert "nested" in one.reason or f"field '{field}' is" in one.reason
            assert len(one.reason) < 400


@pytest.fixture
def deep(tmp_path):
    """Make 2,500 folders in each other: beyond Python's recursion and the system's longest path."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    yield
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest cannot


@pytest.mark.usefixtures("deep")
def test_folders_in_folders_end_no_walk(tmp_path, make_record):
    write_record(tmp_path / "record.json", make_record())
    (tmp_path / "a").mkdir()
    write_record(tmp_path / "a" / "record.json", make_record(seed=1))
    runs, skipped = collect([tmp_path])
    assert [run.seed for run in runs] == [0, 1]
    assert all(one.reason == "cannot be read: File name too long" for one in skipped)
    os.remove(tmp_path / "record.json")
    unreadable = []
    assert [state.seed for state in discover([tmp_path], unreadable.append)] == [1]
    assert len(unreadable) == len(skipped) <= 1

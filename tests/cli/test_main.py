"""The command vfm-ss: its commands, exit statuses, and how it tells errors."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from vfm_ss.cli.call import call
from vfm_ss.cli.main import COMMANDS, main
from vfm_ss.errors import UsageError
from vfm_ss.protocol.records import read_record
from vfm_ss.report.table_data import digits

ROOT = Path(__file__).parents[2]


def test_help_needs_no_torch(tmp_path):
    for name in ("torch", "mmengine", "mmcv", "mmseg", "timm", "pandas"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('this was imported')")
    code = f"""
import sys
from vfm_ss.cli.main import main
for args in [["--help"], ["--version"], *([name, "--help"] for name in {list(COMMANDS)})]:
    try:
        main(args)
    except SystemExit as end:
        assert end.code == 0, args
"""
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, words in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert words in done.stdout
        assert f"usage: vfm-ss {name} " in done.stdout
    assert " ".join(done.stdout.split()).count("Exit status: 0 ") == len(COMMANDS) + 1


@pytest.mark.parametrize("args", [[], ["train"], ["predictt"], ["train", "nowhere.py"]])
def test_wrong_arguments_exit_with_2(args, capsys):
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    assert f"{' '.join(['vfm-ss', *args[:1]]) if args[:1] == ['train'] else 'vfm-ss'}: error: " in (
        capsys.readouterr().err
    )


def outcome(run, capsys, *argv):
    """Return the exit status of a command and what it says on stderr."""
    status = call(lambda args: run(), argparse.ArgumentParser("vfm-ss x"), argv)
    return status, capsys.readouterr().err


def usage_error():
    raise UsageError("unused")


def test_a_foreseen_error_is_one_line_and_a_traceback_on_request(capsys):
    def bad_input():
        read_record("nowhere/record.json")

    line = "vfm-ss x: error: nowhere/record.json: cannot be read: No such file or directory\n"
    assert outcome(bad_input, capsys) == (1, line)
    status, words = outcome(bad_input, capsys, "--verbose")
    assert status == 1
    assert words.startswith("Traceback (most recent call last):\n")
    assert words.endswith(line)


def test_the_status_says_who_has_to_act(capsys, monkeypatch):
    from vfm_ss.compat import bounds, stack

    assert outcome(lambda: None, capsys) == (0, "")
    assert outcome(lambda: 1, capsys) == (1, "")
    with monkeypatch.context() as patch:
        patch.setitem(bounds.requirements(), "timm", Requirement("timm>=99,<100"))
        status, words = outcome(stack.check, capsys)
    assert status == 2
    assert words.startswith("vfm-ss x: error: vfm_ss needs timm >=99,<100, but timm ")
    assert main(["rank", "nowhere"]) == 2
    assert "vfm-ss rank: error: no finished run to rank" in capsys.readouterr().err


def test_ctrl_c_exits_with_130_without_a_traceback(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert outcome(interrupted, capsys) == (130, "vfm-ss x: interrupted\n")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda: digits(2)("no number"), ValueError),  # within vfm_ss, not by its `raise`
        (lambda: digits(2)(None), TypeError),
        (usage_error, UsageError),  # not raised by vfm_ss
        (lambda: int("x"), ValueError),
    ],
)
def test_an_error_that_nobody_foresaw_keeps_its_traceback(fault, kind, capsys):
    with pytest.raises(kind):
        outcome(fault, capsys)
    assert capsys.readouterr().err == ""


class Files(torch.utils.data.Dataset):
    """Two files that cannot be read: one as our reader says, one for a bug."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return read_record("nowhere/record.json") if index == 0 else int("x")


def test_an_error_of_a_data_worker_is_told_like_any_other(capsys):
    def read(index):
        files = torch.utils.data.Subset(Files(), [index])
        return lambda: list(torch.utils.data.DataLoader(files, num_workers=1))

    line = "vfm-ss x: error: nowhere/record.json: cannot be read: No such file or directory\n"
    assert outcome(read(0), capsys) == (1, line)
    with pytest.raises(ValueError, match="in DataLoader worker process"):
        outcome(read(1), capsys)


@pytest.mark.parametrize("command", ["train", "test"])
def test_every_argument_reaches_the_engine(command):
    import inspect

    from vfm_ss.cli import test, train
    from vfm_ss.engine import launch

    parser = {"train": train, "test": test}[command].parser("x")
    taken = inspect.signature(getattr(launch, command)).parameters
    assert {action.dest for action in parser._actions} - {"help"} == set(taken)
    defaults = {name: p.default for name, p in taken.items() if p.default is not p.empty}
    for name in defaults.keys() - {"cfg_options"}:
        assert parser.get_default(name) == defaults[name], name

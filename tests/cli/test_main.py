"""The command vfm-ss: its commands, exit statuses, and how it tells errors."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
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


def test_ctrl_c_that_a_library_makes_an_error_of_is_ctrl_c(capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", interrupted)
    monkeypatch.setattr("mmengine.config.config.FormatCode", interrupted, raising=False)
    told = outcome(lambda: Config({"a": 1}).pretty_text, capsys)
    assert told == (130, "vfm-ss x: interrupted\n")


def test_a_command_minds_ctrl_c_at_once():
    """Nothing that takes time is imported before: an interrupt there would print a traceback."""
    code = """
import sys
before = set(sys.modules)
import vfm_ss.cli.main
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("vfm_ss")))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    python = [sys.executable, "-S", "-c"]  # what others have installed may import more
    out = subprocess.run([*python, code], env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    heavy = {"argparse", "contextlib", "email", "inspect", "packaging", "pathlib", "re"}
    assert (heavy | {"subprocess", "traceback"}).isdisjoint(out.stdout.split())


def test_ctrl_c_while_the_arguments_are_read(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("vfm_ss.cli.main._parser", interrupted)
    assert main(["info"]) == 130


def test_ctrl_c_that_python_loses_comes_again():
    code = """
import argparse, time
from vfm_ss.cli.call import call
class Callback:  # as that of a fork that Ctrl-C falls into
    def __del__(self):
        raise KeyboardInterrupt
def run(args):
    Callback()
    time.sleep(10)
raise SystemExit(call(run, argparse.ArgumentParser("x"), []))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "x: interrupted\n")


def test_sigterm_leaves_neither_files_nor_processes(tmp_path):
    code = """
import argparse, multiprocessing, os, signal, tempfile
from vfm_ss.cli.call import call
def run(args):
    with tempfile.TemporaryDirectory(dir="."):
        # As a worker that has read images and finds nobody to take them.
        multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True).start()
        os.kill(os.getpid(), signal.SIGTERM)
call(run, argparse.ArgumentParser(), [])
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, start_new_session=True
    )
    assert process.wait(60) == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_during_imports(tmp_path):
    """Each command, interrupted where it imports itself, its library, or the library's own."""
    config = ROOT / "configs" / "vfm" / "mae_b16_linear_ade20k.py"
    model = [str(config), str(config)]
    options = {
        "train": [str(config)], "test": model, "predict": [*model, ".", "--out", "out"],
        "export": [*model, "--out", "out.onnx"], "publish": [*model, "--out", "out"],
        "check-data": [str(config)], "rank": ["."], "info": [], "sweep": ["status", "."],
    }  # fmt: skip
    assert options.keys() == COMMANDS.keys()
    code = f"""
import sys
from vfm_ss.cli.main import main
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise KeyboardInterrupt
interrupt = Interrupt()
sys.meta_path.insert(0, interrupt)
for command, options in {options}.items():
    own = "vfm_ss.cli." + command.replace("-", "_")
    library = {{"rank": "pandas", "sweep": "vfm_ss.sweep", "info": "torch"}}.get(command, "torch")
    for interrupt.name in (own, library):
        assert main([command, *options]) == 130, (command, interrupt.name)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


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


def config_of(text):
    def load(path):
        from vfm_ss.engine.prepared_config import load_config

        path.write_text(text)
        load_config(str(path))

    return load


def build(registry, **what):
    def made(path):
        from mmseg import registry as registries

        getattr(registries, registry).build(what)

    return made


ONE_LINE = {
    "custom_imports=dict(imports=['nowhere.such'])": (
        2,
        "No module named 'nowhere'; install it, or add the folder that holds it to PYTHONPATH",
        config_of("custom_imports=dict(imports=['nowhere.such'])"),
    ),
    "import nowhere": (
        2,
        "No module named 'nowhere'; install it, or add the folder that holds it to PYTHONPATH",
        config_of("_base_ = []\nimport nowhere"),
    ),
    "a config that is no Python": (
        1,
        "{}, or a config that it inherits, line 2: SyntaxError: '(' was never closed: y = (",
        config_of("x = 1\ny = ("),
    ),
    "a config whose code is wrong": (
        1,
        "{}, line 2: TypeError: 'int' object does not support item assignment",
        config_of("x = 1\nx['a'] = 2"),
    ),
    "a base that is gone": (1, "{.parent}/gone.py: No such file or directory",
                            config_of("_base_ = 'gone.py'")),
    "a folder in the place of a file": (1, "{.parent}: Is a directory",
                                        lambda path: path.parent.read_bytes()),
    "an unknown type": (
        1,
        "Nope is not in the mmseg::model registry; correct the config, or name the module that has "
        "it in custom_imports",
        build("MODELS", type="Nope"),
    ),
    "an argument that no base class knows either": (
        1,
        "EncoderDecoder.__init__() got an unexpected keyword argument 'nope'; correct the "
        "config, or name the module that has it in custom_imports",
        build("MODELS", type="vfm_ss.VFMEncoderDecoder", backbone={}, decode_head={}, nope=1),
    ),
    "an unknown argument": (
        1,
        "IterTimerHook.__init__() got an unexpected keyword argument 'nope'; correct the "
        "config, or name the module that has it in custom_imports",
        build("HOOKS", type="IterTimerHook", nope=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE_LINE)
def test_bad_input_that_a_library_finds_is_one_line(kind, tmp_path, capsys):
    status, line, load = ONE_LINE[kind]
    path = tmp_path / "x.py"
    expected = (status, f"vfm-ss x: error: {line.format(path)}\n")
    assert outcome(lambda: load(path), capsys) == expected
    assert "Traceback" in outcome(lambda: load(path), capsys, "--verbose")[1]


def test_a_module_of_ours_that_is_missing_is_a_bug(capsys):
    def bug():
        import vfm_ss.nowhere  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        outcome(bug, capsys)


def test_who_reads_the_output_may_stop(tmp_path, write_grid):
    write_grid(tmp_path, ("mae", "sam"), ("default",), seeds=1)
    command = f"{sys.executable} -m vfm_ss.cli.main rank {tmp_path} --format json | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{", "")


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


@pytest.mark.parametrize("words", [["predict", "x.pth", "a.png", "--out", "o"], ["check-data"]])
def test_fewer_than_no_workers_are_refused(words, capsys):
    config = ROOT / "configs" / "vfm" / "mae_b16_linear_ade20k.py"
    with pytest.raises(SystemExit):
        main([words[0], str(config), *words[1:], "--workers", "-1"])
    assert "argument --workers: expected a number from 0, got '-1'" in capsys.readouterr().err

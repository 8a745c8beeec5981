"""Whatever is wrong in a config is said in one line, by every command that reads one."""

import pytest

from vfm_ss.cli.main import main
from vfm_ss.config_file import read_config

WRONG = {
    "model = dict(": "{}, or a config that it inherits, line 1: SyntaxError: '(' was never closed: "
    "model = dict(",
    "x = 1\ny = z": "{}, line 2: NameError: name 'z' is not defined",
    "_base_ = ['inherited.py']": "{.parent}/inherited.py, line 1: ZeroDivisionError: division by "
    "zero",
    "_base_ = ['a.py', 'b.py']": "config {}: KeyError: Duplicate key is not allowed among bases. "
    "Duplicate keys: {{'x'}}",
    "_base_ = ['a.py']\nx = dict(y={{_base_.z}})": "config {}: KeyError: z",
    "raise ValueError('no such year')": "{}, line 1: ValueError: no such year",
    "_base_ = ['vfm_ss::_base_/nowhere.py']": "config {}: FileNotFoundError: file ",
    "x = '\udcff'": "config {}: UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff",
}


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "config.py"
        path.write_text(text, errors="surrogateescape")
        return path

    for name in "ab":
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "inherited.py").write_text("x = 1 / 0\n")
    return write


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_one_line_that_names_the_place(text, config):
    path = config(text)
    with pytest.raises(ValueError) as error:
        read_config(path)
    assert str(error.value).startswith(WRONG[text].format(path))
    assert "\n" not in str(error.value)


def test_overrides_are_merged(config):
    cfg = read_config(config("_base_ = ['a.py']\ny = dict(z=1)"), {"y.z": 2, "w.v": 3})
    assert (cfg.x, cfg.y, cfg.w) == (1, {"z": 2}, {"v": 3})


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train {}", "no section train_dataloader, train_cfg, optim_wrapper;"),
        ("test {} x.pth", "no section test_dataloader, test_evaluator;"),
        ("predict {} x.pth {.parent} --out {.parent}/out", "no section test_dataloader;"),
        ("export {} x.pth --out {.parent}/x.pt2 --cfg-options model=3", "no section model;"),
        ("export {} x.pth --out {.parent}/x.pt2 --cfg-options randomness.seed=x", "seed='x': "),
        ("publish {} x.pth --out {.parent}/out", "x.pth"),
        ("check-data {}", "no train_dataloader, val_dataloader or test_dataloader, so there is"),
    ],
)
def test_each_command_names_what_a_config_lacks(command, missing, config, monkeypatch, capsys):
    path = config("model = dict(type='EncoderDecoder')")
    (path.parent / "photo.png").touch()
    monkeypatch.chdir(path.parent)
    assert main(command.replace("{", "{0").format(path).split()) in (1, 2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"vfm-ss {command.split()[0]}: error: ")
    assert missing in line

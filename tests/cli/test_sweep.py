"""What tools/sweep.py plans, prints and refuses, without training anything."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from vfm_ss.cli.sweep import _minutes, main
from vfm_ss.protocol.settings import all_config_names, parse_config_name
from vfm_ss.protocol.vfms import FAMILIES
from vfm_ss.run_lock import RunLock
from vfm_ss.sweep.factors import of_settings
from vfm_ss.sweep.local import local_slots
from vfm_ss.sweep.plan import expand

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def dry_run(capsys, *args):
    """Return the commands that would run, taken apart, and what stderr says."""
    assert main(["run", "--dry-run", *args]) == 0
    out, err = capsys.readouterr()
    return [shlex.split(line) for line in out.splitlines()], err


def finish(make_record, name, seed):
    folder = Path("work_dirs", name, f"seed{seed}")
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(asdict(make_record(seed=seed))))


def error(capsys, *args):
    assert main(list(args)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vfm-ss sweep: error: ")
    assert err.count("\n") == 1
    return err


def test_the_grid_is_expanded_seed_by_seed(capsys):
    args = ("--vfms", "dinov2,mae", "--settings", "default", "probe", "--seeds", "0", "1")
    commands, err = dry_run(capsys, *args, "--work-dir", "w d")
    names = ("dinov2_b16_linear_ade20k", "mae_b16_linear_ade20k",
             "dinov2_b16_probe_ade20k", "mae_b16_probe_ade20k")  # fmt: skip
    assert commands == [
        [sys.executable, str(ROOT / "tools" / "train.py"),
         str(ROOT / "configs" / "vfm" / f"{name}.py"),
         "--seed", str(seed), "--work-dir", f"w d/{name}/seed{seed}", "--resume"]
        for seed in (0, 1) for name in names
    ]  # fmt: skip
    assert err.startswith("product: 2 VFMs x settings default, probe: 4 cells\n")
    assert not Path("w d").exists(), "a dry run writes nothing"


def test_a_product_of_factors_is_planned_and_told(capsys):
    args = (
        "--vfms",
        "mae,sam",
        "--decoders",
        "linear,probe",
        "--fractions",
        "1,1/16",
        "--seeds",
        "0",
    )
    commands, err = dry_run(capsys, *args)
    names = [Path(command[2]).stem for command in commands]
    assert names == [f"{vfm}_b16_{decoder}_ade20k{part}" for part in ("", "_f16")
                     for decoder in ("linear", "probe") for vfm in ("mae", "sam")]  # fmt: skip
    assert commands[0][2] == str(ROOT / "configs" / "vfm" / "mae_b16_linear_ade20k.py")
    assert commands[-1][2] == f"work_dirs/{names[-1]}/{names[-1]}.py"
    assert "product: 2 VFMs x decoders linear, probe x fractions 1, 1/16: 8 cells" in err
    assert "4 configs not there yet will be written" in err
    assert not Path("work_dirs").exists()
    assert main(["status", ".", *args]) == 3
    out = capsys.readouterr().out
    assert "8 runs: 8 missing" in out
    assert "sam_b16_probe_ade20k_f16" in out


def test_what_somebody_else_put_in_the_place_of_a_config_is_not_executed(capsys, make_record):
    name = "mae_b16_linear_ade20k_f16"
    finish(make_record, name, 0)
    planted = Path("work_dirs", name, f"{name}.py")
    planted.write_text("open('executed', 'w')")
    grid = ("--vfms", "mae", "--fractions", "1/16")
    for command in (("run", "--dry-run"), ("run",), ("status", "work_dirs")):
        line = error(capsys, *command, *grid)
        assert f"{planted} is not the config that this sweep would write" in line
    assert not Path("executed").exists()
    planted.unlink()
    assert main(["status", "work_dirs", *grid]) == 3
    out = capsys.readouterr().out
    assert "1 done" in out
    assert "its record does not say its configuration, which was not compared" in out


def test_the_whole_benchmark_is_one_command(capsys):
    commands, _ = dry_run(capsys, "--vfms", "paper", "--settings", "all")
    assert len(commands) == 240
    names = [Path(command[2]).stem for command in commands]
    paper = [n for n in all_config_names() if parse_config_name(n).vfm in FAMILIES["paper"]]
    assert sorted(names) == sorted(3 * paper)
    folders = [command[command.index("--work-dir") + 1] for command in commands]
    assert len(set(folders)) == 240
    assert commands[0][2].endswith("configs/vfm/eva02_b16_linear_ade20k.py")


def test_config_files_and_options_are_handed_on(capsys, monkeypatch):
    Path("a b.py").touch()
    commands, _ = dry_run(
        capsys, "--configs", "a b.py", "--seeds", "7", "--gpus-per-run", "2", "--amp",
        "--micro-batch", "4", "--cfg-options", "train_cfg.max_iters=3", "x='[1, 2]'",
    )  # fmt: skip
    assert commands == [
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         str(ROOT / "tools" / "train.py"), "a b.py", "--seed", "7",
         "--work-dir", "work_dirs/a b/seed7", "--resume", "--launcher", "pytorch",
         "--amp", "--micro-batch", "4", "--cfg-options", "train_cfg.max_iters=3", "x='[1, 2]'"]
    ]  # fmt: skip
    monkeypatch.chdir(ROOT)
    commands, _ = dry_run(capsys, "--vfms", "mae", "--settings", "default", "--seeds", "0")
    assert commands[0][1:3] == ["tools/train.py", "configs/vfm/mae_b16_linear_ade20k.py"]


def test_finished_runs_and_those_of_others_are_left_out(capsys, make_record):
    args = ("--vfms", "mae", "--settings", "default")
    finish(make_record, "mae_b16_linear_ade20k", 0)
    other = Path("work_dirs/mae_b16_linear_ade20k/seed1")
    other.mkdir(parents=True)
    lock = RunLock(other)
    lock.acquire()
    commands, err = dry_run(capsys, *args)
    assert [command[4] for command in commands] == ["2"]
    assert err.startswith("left out: 1 done\nleft out: 1 running\nproduct: ")
    lock.release()
    (other / "record.json").write_text("{")  # damaged: to be trained
    commands, _ = dry_run(capsys, *args)
    assert [command[4] for command in commands] == ["1", "2"]


def test_nothing_to_do_is_done(capsys, make_record):
    for seed in range(3):
        finish(make_record, "mae_b16_linear_ade20k", seed)
    assert main(["run", "--vfms", "mae", "--settings", "default"]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before: ") == 3
    assert "3 runs: 3 done" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--vfms", "dino", "--settings", "all"), "unknown VFM: 'dino', expected one of eva02,"),
        (("--vfms", "mae", "--settings", "tiny"), "unknown setting: 'tiny', expected one of"),
        (("--vfms", "mae"), "give --settings, or factors as --decoders and --data, too"),
        (("--settings", "probe"), "give --vfms too"),
        (("--vfms", "mae", "--settings", "all", "--sizes", "b"), "--settings and --sizes do not"),
        (("--sizes", "b"), "give --vfms too"),
        (("--vfms", "mae", "--patches", "14"), "patch 14 does not divide the crop 512x512 of"),
        (("--vfms", "mae", "--cfg-options", "model.backbone.img_size=(504,504)", "--patches", "16"),
         "the nearest size that works is 496 or 512"),
        (("--vfms", "mae", "--decoders", "upernet"), "--decoders: unknown 'upernet', expected"),
        ((), "nothing to train: give --vfms with --settings or with factors"),
        (("--configs", "no.py"), "config no.py does not exist"),
        (("--configs", "a/x.py", "b/x.py"), "would share the folder x; rename one of them"),
        (("--configs", "a/x.py", "--seeds", "1,-2"), "integers from 0, got '-2'"),
        (("--configs", "a/x.py", "--seeds", "one"), "integers from 0, got 'one'"),
        (("--configs", "a/x.py", "--partition", "gpu"), "--partition needs --executor slurm"),
        (("--configs", "a/x.py", "--no-wait"), "--no-wait needs --executor slurm"),
        (("--configs", "a/x.py", "--executor", "slurm"), "needs --time, for example"),
        (("--configs", "a/x.py", "--executor", "slurm", "--time", "soon"), "--time 'soon': exp"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_ends_with_one_line(args, message, capsys):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.py").touch()
    assert message in error(capsys, "run", *args)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--jobs", "0"), ("--retries", "-1"), ("--hang-minutes", "0"), ("--hang-minutes", "nan"),
     ("--micro-batch", "x"), ("--retry-seconds", "-1"), ("--gpus-per-run", "1.5")],
)  # fmt: skip
def test_numbers_are_checked(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "--configs", "x.py", f"{option}={value}"])
    assert stop.value.code == 2
    assert f"argument {option}: expected " in capsys.readouterr().err


def test_watch_before_the_folder_is_explained(capsys):
    with pytest.raises(SystemExit):
        main(["status", "--watch", "work_dirs"])
    assert "(and WORK_DIR before --watch), got 'work_dirs'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("0:00:01", 1), ("2-0", 2880), ("1-12:30", 2190),
     ("1-00:00:01", 1441)],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text, minutes):
    assert _minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "1:2:3:4", "-5", "1h", "1-"])
def test_other_time_limits_are_refused(text):
    with pytest.raises(ValueError, match="--time"):
        _minutes(text)


def test_gpus_are_shared_among_runs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a1,7,9")
    assert local_slots(None, 1) == ["4", "5", "GPU-a1", "7", "9"]
    assert local_slots(None, 2) == ["4,5", "GPU-a1,7"]
    assert local_slots(1, 2) == ["4,5"]
    assert local_slots(2, 0) == ["", ""]
    with pytest.raises(ValueError, match=r"3 runs at a time with 2 GPU\(s\) each need more than"):
        local_slots(3, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_slots(None, 1) == [None]
    assert local_slots(3, 2) == [None] * 3


def test_without_gpu_variables_nvidia_smi_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_slots(None, 1) == ["0", "1"]
    tool.unlink()
    assert local_slots(None, 1) == [None]


def test_planning_and_status_import_no_torch():
    code = """
import sys
from vfm_ss.cli.sweep import main
main(["run", "--vfms", "all", "--settings", "all", "--dry-run"])
main(["run", "--vfms", "paper", "--decoders", "all", "--fractions", "1/16", "--dry-run"])
main(["status", "."])
heavy = {"torch", "mmengine", "mmseg", "pandas", "submitit"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_submitit_the_message_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    Path("x.py").touch()
    args = ("--configs", "x.py", "--executor", "slurm", "--time", "5")
    assert "pip install submitit" in error(capsys, "run", *args)


def test_families_stand_for_their_vfms(tmp_path):
    def names(vfms, settings):
        return {run.name for run in expand(tmp_path, of_settings(vfms, settings), seeds=(0,))}

    assert len(names(["paper"], ["all"])) == 80
    assert names(["next"], ["large"]) >= {"aimv2_l16_linear_ade20k", "dinov3_l16_linear_ade20k"}
    assert not any(name.startswith("aimv2") for name in names(["next"], ["default"]))
    assert names(["all"], ["all"]) == names(["paper", "next"], ["all"])
    with pytest.raises(ValueError, match="arch of AIMv2 must be 'large'"):
        names(["aimv2"], ["default"])

"""What a sweep's commands would train, known without training; other runs are refused."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from mmengine.config import Config

from vfm_ss.cli.identities import answer, ask
from vfm_ss.cli.sweep import main
from vfm_ss.files import sha256
from vfm_ss.protocol.identity import config_hash, identity
from vfm_ss.sweep.identity import Asked
from vfm_ss.sweep.journal import Journal
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.worker import Rules, Worker

LEAVES = Path(__file__).parents[2] / "configs" / "vfm"
CONFIG = """
model = dict(backbone=dict(type="X", pretrained={pretrained}))
optim_wrapper = dict(type="MixedPrecisionOptimWrapper", optimizer=dict(lr=1e-4))
train_cfg = dict(type="OptimStepTrainLoop", max_iters=10)
train_dataloader = dict(dataset=dict(type="Y", fraction=1.0))
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("a.py").write_text(CONFIG.format(pretrained=True))


@pytest.fixture
def finished(make_record):
    """`finished(seed, cfg=..., **fields)`: a finished run of the config in its sweep's folder."""

    def make(seed=0, cfg=None, **fields):
        config = identity(cfg or Config.fromfile("a.py"))
        known = {"config": config, "config_hash": config_hash(config), **fields}
        folder = Path("work_dirs", "a", f"seed{seed}")
        folder.mkdir(parents=True)
        record = make_record(seed=seed, name="a", step=10, max_steps=10, **known)
        (folder / "record.json").write_text(json.dumps(asdict(record)))
        return folder

    return make


def run(capsys, *args, status):
    assert main(list(args)) == status
    return capsys.readouterr()


def test_one_process_answers_for_a_whole_sweep(monkeypatch):
    started = []
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: started.append(a) or start(*a, **k))
    files = [
        str(LEAVES / f"{name}.py") for name in ("mae_b16_linear_ade20k", "sam_b8_linear_ade20k")
    ]
    option = ["--cfg-options", "optim_wrapper.optimizer.lr=0.01", "train_cfg.max_iters=7"]
    commands = [[file, "--seed", str(seed), *option] for seed in range(3) for file in files]
    found = ask([*commands, [files[0], "--work-dir", "x", "--resume", "--micro-batch", "2"]])
    assert len(started) == 1
    assert found.pop().config == identity(Config.fromfile(files[0]))
    for (file, *_), one in zip(commands, found, strict=True):
        cfg = Config.fromfile(file)
        cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_iters = 0.01, 7
        assert one.config == identity(cfg)
        assert one.hash == config_hash(identity(cfg))
    assert found[0].weights is True


def test_amp_counts_and_is_the_same_on_every_device():
    plain, amp = (found["config"] for found in answer([["a.py"], ["a.py", "--amp"]]))
    assert amp == {**plain, "optim_wrapper.precision": "mixed"}


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        ("x = (", (), r"config bad.py cannot be read: .*"),
        ("raise RuntimeError('a\\nb')", (), "config bad.py cannot be read: RuntimeError: a b"),
        ("x = 1", ("--cfg-options", "lr"), "'lr' is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_trained(text, args, told, capsys):
    Path("bad.py").write_text(text)
    err = run(capsys, "run", "--configs", "a.py", "bad.py", *args, status=2).err
    assert err.count("\n") == 1
    assert re.search(told, err)
    assert not Path("work_dirs").exists()


def test_only_the_same_configuration_has_finished_before(finished, capsys):
    for seed in range(3):
        finished(seed)
    args = ("--configs", "a.py", "--seeds", "0", "1", "2")
    out = run(capsys, "run", *args, status=0).out
    assert out.count("finished before: ") == 3
    assert "not compared" not in out
    # What cannot change the result does not matter; what can is named.
    out = run(capsys, "run", *args, "--cfg-options", "train_cfg.micro_batch=3", status=0).out
    assert out.count("finished before: ") == 3
    option = ("--cfg-options", "optim_wrapper.optimizer.lr=0.01", "train_cfg.max_iters=20")
    for more in ((), ("--dry-run",)):
        done = run(capsys, "run", *args, *option, *more, status=2)
        assert done.out == ""
        assert done.err == (
            "vfm-ss sweep: error: work_dirs/a/seed0: the folder holds a finished run of another "
            "configuration: optim_wrapper.optimizer.lr was 0.0001, is 0.01; train_cfg.max_iters "
            "was 10, is 20 (2 more folders do); give another --work-dir, the options of that run, "
            "or delete its folder\n"
        )
    fraction = ("--cfg-options", "train_dataloader.dataset.fraction=0.25")
    told = r"dataset\.fraction was [^;]+, is [^;]+; .*\(2 more folders do\)"
    assert re.search(told, run(capsys, "run", *args, *fraction, status=2).err)
    again = run(capsys, "run", *args, *option, "--work-dir", "w2", "--dry-run", status=0)
    assert len(again.out.splitlines()) == 3, "another folder: another run"


def test_status_tells_another_run_from_the_one_asked_for(finished, capsys):
    folder = finished()
    args = ("status", "work_dirs", "--configs", "a.py", "--seeds", "0")
    assert "1 run: 1 done" in run(capsys, *args, status=0).out
    option = ("--cfg-options", "train_cfg.max_iters=20")
    for more in (option, (*option, "--watch")):
        out = run(capsys, *args, *more, status=1).out
        assert "a seed 0: the folder holds a finished run of another configuration: " in out
        assert "train_cfg.max_iters was 10, is 20" in out
        assert "1 run: 1 other" in out
    # Without the grid: against what the last sweep in this folder was given.
    Journal("a", 0, config_hash=config_hash(identity(Config.fromfile("a.py")))).write(folder)
    assert "1 run: 1 done" in run(capsys, "status", "work_dirs", status=0).out
    Journal("a", 0, config_hash="0" * 64).write(folder)
    out = run(capsys, "status", "work_dirs", status=1).out
    assert "another configuration than its sweep was given" in out


@pytest.mark.parametrize(
    ("source", "pretrained", "told"),
    [
        ("model.safetensors of https://huggingface.co/timm/x", True, None),
        ("/elsewhere/w.pth", True, "weights were /elsewhere/w.pth, are the published ones"),
        ("/elsewhere/w.pth", "'w.pth'", None),  # moved: the same file by its checksum
        ("/elsewhere/w.pth", "'v.pth'", "weights were /elsewhere/w.pth, are v.pth, another file"),
        ("/elsewhere/w.pth", "'no.pth'", "are no.pth, which cannot be read"),
    ],
)
def test_other_weights_are_another_run(source, pretrained, told, finished, capsys):
    Path("w.pth").write_bytes(b"w")
    Path("v.pth").write_bytes(b"v")
    Path("a.py").write_text(CONFIG.format(pretrained=pretrained))
    checksum = None if "https" in source else sha256([Path("w.pth")])
    finished(weights={"source": source, "sha256": checksum})
    done = run(capsys, "run", "--configs", "a.py", "--seeds", "0", status=2 if told else 0)
    assert (told or "finished before: a seed 0\n") in done.out + done.err


def test_a_finished_run_is_not_done_without_the_further_data_sets_asked_for(
    finished, make_record, capsys
):
    cfg = Config.fromfile("a.py")
    cfg.val_dataloader = dict(dataset=dict(type="Y", pipeline=[dict(type="Load")]))
    Path("a.py").write_text(cfg.pretty_text)
    Path("night.py").write_text('val_dataloader = dict(dataset=dict(type="Z", split="night"))')
    args = ("--configs", "a.py", "--seeds", "0", "--cfg-options", "eval_data=night.py")
    (asked,) = ask([["a.py", *args[-2:]]])
    assert asked.evaluations == {
        "night.py": {
            "val_dataloader.dataset.pipeline.0.type": "Load",
            "val_dataloader.dataset.split": "night",
            "val_dataloader.dataset.test_mode": True,
            "val_dataloader.dataset.type": "Z",
        }
    }
    assert asked.config == identity(cfg), "it changes nothing of the training"
    folder = finished(cfg=cfg).absolute()
    done = run(capsys, "run", *args, "--dry-run", status=0)
    assert len(done.out.splitlines()) == 1, "to be evaluated"
    out = run(capsys, "status", "work_dirs", *args, status=3).out
    assert "a seed 0: trained; still to be evaluated on night.py" in out
    worker = Worker(PlannedRun("a", 0, folder, ("true",), (), asked=asked), Rules(), "id", ".")
    assert worker() == "failed"
    error = json.loads((folder / "sweep.json").read_text())["error"]
    assert error == "ended without a score on night.py"
    assert "1 run: 1 failed" in run(capsys, "status", "work_dirs", *args, status=1).out
    path = folder / "record.json"
    record = json.loads(path.read_text())
    score = {"miou": 1.0, "iou": None, "history": [[record["step"], 1.0]]}
    record["evaluations"] = {"night": {**score, "config": asked.evaluations["night.py"]}}
    path.write_text(json.dumps(record))
    assert "finished before: a seed 0\n" in run(capsys, "run", *args, status=0).out
    # Another set of that name is another set.
    Path("night.py").write_text('val_dataloader = dict(dataset=dict(type="Z", split="fog"))')
    assert run(capsys, "run", *args, "--dry-run", status=0).out.count("\n") == 1


def test_a_record_of_schema_1_is_compared_in_what_it_says(finished, capsys):
    finished(config=None, config_hash=None)
    args = ("run", "--configs", "a.py", "--seeds", "0")
    out = run(capsys, *args, status=0).out
    note = "its record does not say its configuration, which was not compared"
    assert f"finished before: a seed 0 ({note})" in out
    err = run(capsys, *args, "--cfg-options", "train_cfg.max_iters=20", status=2).err
    assert "train_cfg.max_iters was 10, is 20" in err


def test_another_run_that_ends_in_the_folder_meanwhile_is_not_taken_for_ours(finished):
    folder = finished().absolute()
    asked = Asked({**identity(Config.fromfile("a.py")), "train_cfg.max_iters": 11})
    never = ("touch", str(folder / "trained"))
    worker = Worker(PlannedRun("a", 0, folder, never, (), asked=asked), Rules(), "id", os.getcwd())
    assert worker() == "failed"
    assert not (folder / "trained").exists()
    journal = json.loads((folder / "sweep.json").read_text())
    assert journal["error"].endswith("configuration: train_cfg.max_iters was 10, is 11")
    assert journal["config_hash"] == asked.hash


def test_the_process_that_answers_needs_no_torch():
    code = f"""
import sys
from vfm_ss.cli.identities import answer
answer([[{str(LEAVES / "mae_b16_linear_ade20k.py")!r}]])
sys.exit(3 if {{"torch", "mmseg"}} & set(sys.modules) else 0)
"""
    env = {**os.environ, "PYTHONPATH": str(LEAVES.parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

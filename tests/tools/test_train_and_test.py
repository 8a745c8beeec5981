"""The main job through the command line: train, validate, record, resume, test, paint."""

import json
import re
import shutil

import cv2
import pytest
import torch

from vfm_ss.cli.identities import ask
from vfm_ss.protocol.records import read_record

pytestmark = pytest.mark.slow


def final_weights(project, work_dir, step=4):
    checkpoint = torch.load(project / work_dir / f"iter_{step}.pth", weights_only=False)
    return checkpoint["state_dict"]


def test_train_test_and_resume(project, tool):
    log = tool("dist_train.sh", "tiny.py", "1")
    losses = [float(x) for x in re.findall(r"Iter\(train\).*?decode\.loss_ce: ([\d.]+)", log)]
    assert len(losses) == 4, "a log line per optimiser step"
    assert losses[-1] < 0.7 * losses[0]
    assert re.search(r"Iter\(train\) \[4/4\] .*lr: .*eta: .*time: .*loss: ", log)

    work_dir = project / "work_dirs" / "tiny"
    record = read_record(work_dir / "record.json")
    assert (record.name, record.status, record.step, record.max_steps) == ("tiny", "finished", 4, 4)
    assert [step for step, _ in record.history] == [2, 4]
    assert record.miou == record.history[-1][1]
    assert record.best_miou == max(miou for _, miou in record.history)
    assert (record.decoder, record.train_dataset, record.eval_dataset) == (
        "linear",
        "ade20k",
        "ade20k",
    )
    assert (record.effective_batch, record.micro_batch, record.world_size) == (16, 16, 1)
    assert (record.precision, record.seed, record.patch) == ("fp32", 0, 16)
    assert 0 < record.step_seconds * 3 < record.train_seconds * 3
    assert record.iou["wall"] > 0
    (asked,) = ask([[str(project / "tiny.py"), "--seed", "3", "--micro-batch", "2"]])
    assert asked.config == record.config, "known without training, whatever the runner adds"
    assert asked.hash == record.config_hash

    # The checkpoint gives the validation's numbers again, and pictures of them.
    log = tool(
        "dist_test.sh", "tiny.py", "work_dirs/tiny/iter_4.pth", "1", "--show-dir", "shown",
        "--out", "maps",
    )  # fmt: skip
    results = json.loads(next((work_dir).glob("*/2*.json")).read_text())
    assert results["mIoU"] == record.miou
    assert len(list(project.glob("shown/**/*.png"))) == 3
    maps = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in project.glob("maps/*.png")]
    assert [m.shape for m in maps] == [(72, 96)] * 3
    assert all(m.min() > 0 and m.max() <= 150 for m in maps), "stored as ADE20K stores classes"

    # A finished run is not overwritten by accident.
    log = tool("train.py", "tiny.py", fails=True)
    assert "work_dirs/tiny holds iter_4.pth of an earlier run; go on with it by --resume" in log
    for path in work_dir.glob("*.pth"):
        path.rename(path.with_suffix(".kept"))
    log = tool("train.py", "tiny.py", fails=True)
    assert "work_dirs/tiny holds a finished run; choose another --work-dir" in log
    for path in work_dir.glob("*.kept"):
        path.rename(path.with_suffix(".pth"))

    # Stopped after step 2 and resumed, the run ends with the same weights.
    whole = final_weights(project, "work_dirs/tiny")
    (project / "stopped").mkdir()
    shutil.copy(work_dir / "iter_2.pth", project / "stopped")
    log = tool("train.py", "tiny.py", "--work-dir", "stopped", "--resume")
    assert "resumed epoch: 0, iter: 2" in log
    for name, value in final_weights(project, "stopped").items():
        assert torch.equal(value, whole[name]), name
    resumed = read_record(project / "stopped" / "record.json")
    assert [step for step, _ in resumed.history] == [2, 4]
    assert resumed.history[-1] == record.history[-1]

    # Stopped between the last checkpoint and the last validation, it makes up for the latter.
    (project / "stopped" / "record.json").unlink()
    tool("train.py", "tiny.py", "--work-dir", "stopped", "--resume")
    resumed = read_record(project / "stopped" / "record.json")
    assert resumed.status == "finished"
    assert resumed.history == record.history


@pytest.mark.parametrize("config", ["tiny.py", "m2f.py"])
def test_the_micro_batch_and_the_number_of_processes_change_nothing(config, project, tool):
    runs = {
        "one": ("train.py", config, "--micro-batch", "16"),
        "sixteen": ("train.py", config, "--micro-batch", "1"),
        "two": ("dist_train.sh", config, "2", "--micro-batch", "4"),
    }
    options = ("--cfg-options", "train_cfg.val_interval=100", "val_dataloader=None",
               "val_evaluator=None", "val_cfg=None")  # fmt: skip
    if config == "m2f.py":
        # Its matching is discrete, and AdamW makes steps of rounding errors where a parameter, such
        # as the keys' bias, has no other gradient.
        options = (*options, "optim_wrapper.optimizer.type=SGD", "optim_wrapper.optimizer.lr=0.01")
    for name, args in runs.items():
        tool(*args, "--work-dir", name, *options)
    expected = final_weights(project, "one")
    for name in ("sixteen", "two"):
        for key, value in final_weights(project, name).items():
            torch.testing.assert_close(
                value,
                expected[key],
                rtol=1e-3,
                atol=2e-5,
                msg=lambda m, n=f"{name} {key}": f"{n}: {m}",
            )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere.py",), "config nowhere.py does not exist"),
        (("tiny.py", "--micro-batch", "3"), "micro_batch=3 does not divide the 16 images"),
        (("tiny.py", "--cfg-options", "model.decode_head.num_classes=7"),
         "RawADE20KDataset has 150 classes; set model.decode_head.num_classes=150"),
        (("tiny.py", "--cfg-options", "data_root=x", "train_dataloader.dataset.data_root=nowhere"),
         "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_clear_line(args, message, tool):
    log = tool("train.py", *args, fails=True)
    last = log.strip().splitlines()[-1]
    assert last.startswith("train.py: error: ")
    assert message in last
    assert "Traceback" not in log


def test_a_work_dir_that_is_deleted_under_its_training_is_said(project, tool):
    """At the next write, whoever writes: the log's numbers, a checkpoint, the record."""
    process = tool("train.py", "tiny.py", "--work-dir", "run", "--cfg-options",
                   "train_cfg.max_iters=100000", "train_cfg.val_interval=100000",
                   "default_hooks.checkpoint.interval=20", wait=False)  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Iter(train)" in line:
            break
    (project / "run").rename(project / "deleted")  # at once; rmtree takes one file after another
    shutil.rmtree(project / "deleted")
    output = "".join(lines) + process.communicate(timeout=300)[0]
    last = output.strip().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("train.py: error: ")
    assert re.search(r"the folder \S+/run is gone", last)
    assert "Traceback" not in output


def test_several_processes_fail_without_torchrun_s_traceback(tool):
    bad = ("--cfg-options", "train_cfg.max_iters=abc")
    log = tool("dist_train.sh", "tiny.py", "2", *bad, fails=True)
    assert "train.py: error: train_cfg.max_iters='abc'" in log
    assert "Traceback" not in log

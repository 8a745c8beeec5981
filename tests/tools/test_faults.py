"""Faults of runs of two processes, through the command line."""

import os
import re
import signal
import subprocess
import time

import pytest
import torch

pytestmark = pytest.mark.slow

FEW = ("--cfg-options", "train_cfg.max_iters=20",
       "val_dataloader=None", "val_evaluator=None", "val_cfg=None",
       "default_hooks.checkpoint.interval=1", "model.backbone.drop_path_rate=0.3")  # fmt: skip


def start(tool, work_dir):
    """Start a run of two processes, and wait for its first checkpoint."""
    work_dir.parent.mkdir(parents=True, exist_ok=True)
    process = tool("dist_train.sh", "tiny.py", "2", "--work-dir", str(work_dir), *FEW, wait=False)
    end = time.monotonic() + 300
    while not (work_dir / "last_checkpoint").exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def ranks(process):
    """Return the ids of the processes that torchrun has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True)
    return [int(pid) for pid in found.stdout.split()]


def end_of(process):
    begin = time.monotonic()
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    return output, time.monotonic() - begin


def test_one_of_two_processes_dies_and_a_signal_stops_both(tool, project):
    work_dir = project / "a path ü" / "killed"
    process = start(tool, work_dir)
    os.kill(ranks(process)[1], signal.SIGKILL)
    output, seconds = end_of(process)
    assert seconds < 90, "bounded, whatever the machine"
    assert re.search(r"another process of this run died in step \d|exitcode +: -9", output)

    # The work dir is as a kill leaves it; a scheduler's SIGTERM saves.
    process = tool("dist_train.sh", "tiny.py", "2", "--work-dir", str(work_dir), "--resume", *FEW,
                   wait=False)  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Iter(train)" in line:
            process.send_signal(signal.SIGTERM)
            break
    output, _ = end_of(process)
    output = "".join(lines) + output
    if "[20/20]" not in output:  # else it was too quick for us
        assert "Stopped by SIGTERM after step" in output
    tool("dist_train.sh", "tiny.py", "2", "--work-dir", str(work_dir), "--resume", *FEW)
    tool("dist_train.sh", "tiny.py", "2", "--work-dir", "whole", *FEW)
    folders = (work_dir, project / "whole")
    found, expected = (torch.load(f / "iter_20.pth", weights_only=False) for f in folders)
    for key in ("state_dict", "optimizer"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)

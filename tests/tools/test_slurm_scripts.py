"""slurm_train.sh and slurm_test.sh: what they ask of srun."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def call(tmp_path):
    """`call(script, *args, **env)`: the arguments that srun gets."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)

    def run(script, *args, status=0, **env):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VIRTUAL_ENV": "x", **env}
        done = subprocess.run([TOOLS / script, *args], env=env, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout.splitlines()

    return run


def test_training_as_in_mmseg(call):
    resources = ["-p", "gpu", "--job-name=my job", "--gres=gpu:4", "--ntasks=4",
                 "--ntasks-per-node=4", "--cpus-per-task=5", "--kill-on-bad-exit=1"]  # fmt: skip
    python = ["python", "-u", str(TOOLS / "train.py"), "c.py"]
    end = ["--launcher", "slurm"]
    assert call("slurm_train.sh", "gpu", "my job", "c.py") == [*resources, *python, *end]
    asked = call("slurm_train.sh", "gpu", "my job", "c.py", "w d", "--cfg-options", "a='b c'")
    rest = ["--work-dir", "w d", "--cfg-options", "a='b c'"]
    assert asked == [*resources, *python, *rest, *end]
    asked = call("slurm_train.sh", "gpu", "my job", "c.py", "--work-dir", "w", "--amp")
    assert asked == [*resources, *python, "--work-dir", "w", "--amp", *end]


def test_the_environment_says_how_many_gpus(call):
    asked = call(
        "slurm_test.sh", "p", "j", "c.py", "iter_1.pth", "--tta",
        GPUS="8", GPUS_PER_NODE="2", CPUS_PER_TASK="3", SRUN_ARGS="--quotatype=spot --mem=9G",
    )  # fmt: skip
    assert asked == [
        "-p", "p", "--job-name=j", "--gres=gpu:2", "--ntasks=8", "--ntasks-per-node=2",
        "--cpus-per-task=3", "--kill-on-bad-exit=1", "--quotatype=spot", "--mem=9G",
        "python", "-u", str(TOOLS / "test.py"), "c.py", "iter_1.pth", "--tta",
        "--launcher", "slurm",
    ]  # fmt: skip


def test_too_few_arguments(call):
    assert "usage: " in call("slurm_train.sh", "gpu", "job", status=2)
    assert "CHECKPOINT" in call("slurm_test.sh", "gpu", "job", "c.py", status=2)

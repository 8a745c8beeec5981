"""The gradients of an optimiser step do not depend on how its 16 images are split."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("accumulated_step.py")
step_gradients = runpy.run_path(str(SCRIPT))["step_gradients"]


def assert_same(gradients, reference):
    assert gradients.keys() == reference.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in reference.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("normalize", ["batch", "image"])
@pytest.mark.parametrize("num_micro_batches", [4, 16, 3])
def test_micro_batches(num_micro_batches, normalize):
    assert_same(step_gradients(num_micro_batches, normalize), step_gradients(1, normalize))


def test_two_processes(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    cases = ["batch:2", "image:8"]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", str(tmp_path), *cases], env=environment
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for case in cases:
        reference = step_gradients(1, case.split(":")[0])
        for rank in range(2):
            assert_same(torch.load(tmp_path / f"{case}_{rank}.pth"), reference)


def test_points_change_from_step_to_step():
    first, again, second = (step_gradients(1, step=step) for step in (0, 0, 1))
    assert_same(first, again)
    assert any(not torch.allclose(first[name], second[name]) for name in first)

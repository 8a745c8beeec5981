"""A tiny data set in ADE20K's layout, a config for it, and the tools run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

CONFIG = """
_base_ = "{root}/configs/vfm/dinov2_b16_{decoder}_ade20k.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmViT",
        model_name="vit_tiny_patch16_224",
        depth=2,
        img_size=(64, 64),
        pretrained=False,
    ),
    decode_head=dict({head}),
)
data_root = "data/ade"
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
train_cfg = dict(max_iters=4, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
TINY_MASK2FORMER = (
    "channels=32, num_queries=8, num_layers=2, num_heads=4, feedforward_channels=64, "
    "loss_decode=dict(type='Mask2FormerLoss', num_points=64)"
)


@pytest.fixture
def project(tmp_path):
    """A folder with `tiny.py`, the same with Mask2Former in `m2f.py`, and `data/ade`.

    The data set has three striped images for each split.
    """
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / "data" / "ade" / kind / split).mkdir(parents=True)
        for k in range(3):
            label = np.ones((72, 96), np.uint8)
            label[:, 20 + 10 * k : 60 + 10 * k] = 5
            label[:8] = 0
            image = np.where(label[..., None] == 5, (200, 80, 40), (30, 120, 160))
            image = (image + rng.normal(0, 20, image.shape)).clip(0, 255).astype(np.uint8)
            folder = tmp_path / "data" / "ade"
            cv2.imwrite(str(folder / "images" / split / f"{k}.jpg"), image)
            cv2.imwrite(str(folder / "annotations" / split / f"{k}.png"), label)
    for name, decoder, head in (("tiny", "linear", ""), ("m2f", "mask2former", TINY_MASK2FORMER)):
        (tmp_path / f"{name}.py").write_text(CONFIG.format(root=ROOT, decoder=decoder, head=head))
    return tmp_path


@pytest.fixture
def tool(project):
    """`tool(name, *args)`: run a tool of this repository in the project; returns its output.

    With `wait=False` it returns the running process.
    """

    def run(name: str, *args: str, fails: bool = False, wait: bool = True):
        path = str(ROOT / "tools" / name)
        command = [path] if name.endswith(".sh") else [sys.executable, path]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{project}"}
        env["PORT"] = str(20000 + os.getpid() % 20000)
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if not wait:
            return subprocess.Popen([*command, *args], cwd=project, env=env, **pipes)
        done = subprocess.run([*command, *args], cwd=project, env=env, timeout=600, **pipes)
        assert (done.returncode != 0) == fails, done.stdout[-4000:]
        return done.stdout

    return run

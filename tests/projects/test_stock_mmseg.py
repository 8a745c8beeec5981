"""A stock mmseg 1.x project takes single parts of ours, or inherits a config of ours.

The project is mmseg's own: its train.py, test.py and base configs, as its wheel ships them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
MMSEG = Path(mmseg.__file__).parent / ".mim"

pytestmark = pytest.mark.slow

# What a project of this size states in each of its configs: small crops, few steps, no workers.
SMALL = """
custom_imports = dict(imports=["vfm_ss"])
crop_size = (64, 64)
norm_cfg = dict(type="BN")
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomResize", scale=(96, 72), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=1.0),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(96, 72), keep_ratio=True),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
randomness = dict(seed=0)
"""

# mmseg's UPerNet on a ViT, its backbone replaced.
UPERNET = """
_base_ = [
    "_base_/models/upernet_vit-b16_ln_mln.py",
    "_base_/datasets/ade20k.py",
    "_base_/default_runtime.py",
    "_base_/schedules/schedule_20k.py",
]
{small}
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    backbone=dict(
        _delete_=True, type="DINOv2", img_size=crop_size, pretrained=False,
        depth=4, embed_dim=48, num_heads=3, out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[48] * 4, out_channels=48),
    decode_head=dict(in_channels=[48] * 4, channels=16, num_classes=150, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=48, channels=16, num_classes=150, norm_cfg=norm_cfg),
    test_cfg=dict(mode="slide", crop_size=crop_size, stride=(48, 48)),
)
"""

# mmseg's FCN, its head replaced.
RESNET = """
_base_ = [
    "_base_/models/fcn_r50-d8.py",
    "_base_/datasets/ade20k.py",
    "_base_/default_runtime.py",
    "_base_/schedules/schedule_20k.py",
]
{small}
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    backbone=dict(depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        _delete_=True, type="LinearHead", in_channels=512, in_index=3, num_classes=150
    ),
    auxiliary_head=dict(in_channels=256, channels=16, num_classes=150, norm_cfg=norm_cfg),
)
"""

# A config of ours with another size of backbone, and the project's own data.
INHERITED = """
_base_ = __import__("vfm_ss") and "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"
{small}
model = dict(
    backbone=dict(
        img_size=crop_size, pretrained=False, depth=2, embed_dim=48, num_heads=3
    )
)
data = dict(data_root="data/ade/ADEChallengeData2016")
train_dataloader["dataset"].update(data)
val_dataloader["dataset"].update(data)
test_dataloader = val_dataloader
"""

# A config of ours at another crop size: one line, and our pipelines in data workers.
ONE_LINE = """
_base_ = __import__("vfm_ss") and "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"
model = dict(backbone=dict(img_size=(64, 64)))
model["backbone"].update(pretrained=False, depth=2, embed_dim=48, num_heads=3)
loader = dict(num_workers=1, dataset=dict(data_root="data/ade/ADEChallengeData2016"))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
"""

CONFIGS = {"upernet": UPERNET, "resnet": RESNET, "inherited": INHERITED, "one_line": ONE_LINE}


@pytest.fixture
def project(tmp_path):
    """mmseg's tools and base configs, and five striped images for each split."""
    for name in ("train.py", "test.py"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        shutil.copy(MMSEG / "tools" / name, tmp_path / "tools")
    shutil.copytree(MMSEG / "configs" / "_base_", tmp_path / "configs" / "_base_")
    for name, text in CONFIGS.items():
        (tmp_path / "configs" / f"{name}.py").write_text(text.replace("{small}", SMALL))
    rng = np.random.default_rng(0)
    data = tmp_path / "data" / "ade" / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (data / kind / split).mkdir(parents=True)
        for k in range(5):
            label = np.ones((72, 96), np.uint8)
            label[:, 10 + 10 * k : 60 + 10 * k] = 5
            image = np.where(label[..., None] == 5, (200, 80, 40), (30, 120, 160))
            image = (image + rng.normal(0, 20, image.shape)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(data / "images" / split / f"{k}.jpg"), image)
            cv2.imwrite(str(data / "annotations" / split / f"{k}.png"), label)
    return tmp_path


def run(project, tool, *args):
    """Run one of the project's tools, as its user does."""
    done = subprocess.run(
        [sys.executable, f"tools/{tool}.py", *args],
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stock_project_trains(name, project):
    log = run(project, "train", f"configs/{name}.py", "--work-dir", "out")
    losses = [float(x) for x in re.findall(r"Iter\(train\).*?[ :]loss: ([\d.]+)", log)]
    assert len(losses) == 3
    assert losses[-1] < losses[0], losses
    scores = [json.loads(line) for line in next(project.glob("out/*/vis_data/*.json")).open()]
    miou = next(row["mIoU"] for row in scores if "mIoU" in row)
    assert 0 <= miou <= 100

    # The project's own test.py reads the checkpoint and gives the validation's score again.
    if name in ("upernet", "one_line"):
        run(project, "test", f"configs/{name}.py", "out/iter_3.pth", "--work-dir", "tested")
        assert json.loads(next(project.glob("tested/*/2*.json")).read_text())["mIoU"] == miou
    if name in ("inherited", "one_line"):
        record = json.loads((project / "out" / "record.json").read_text())
        assert (record["vfm"], record["decoder"], record["status"]) == (
            "dinov2",
            "linear",
            "finished",
        )


def test_upernet_reads_the_four_levels_of_dinov2():
    """Every level changes the prediction, so that none of the four is dropped on the way."""
    from mmengine.config import Config
    from mmseg.registry import MODELS

    cfg = Config.fromfile(MMSEG / "configs" / "_base_" / "models" / "upernet_vit-b16_ln_mln.py")
    neck = MODELS.build({**cfg.model.neck, "in_channels": [24] * 4, "out_channels": 24})
    backbone = MODELS.build(
        dict(type="DINOv2", img_size=64, pretrained=False, depth=4, embed_dim=24, num_heads=2,
             out_indices=(0, 1, 2, 3))
    )  # fmt: skip
    head = {"in_channels": [24] * 4, "channels": 8, "norm_cfg": dict(type="BN")}
    head = MODELS.build({**cfg.model.decode_head, **head}).eval()
    levels = backbone(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    logits = head(neck(levels))
    grads = torch.autograd.grad(logits.square().sum(), levels)
    assert [level.shape for level in levels] == [(1, 24, 4, 4)] * 4
    assert all(grad.abs().sum() > 0 for grad in grads)

"""The base config, the segmentor and the metric together, through mmseg's own entry points."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.apis import inference_model
from mmseg.registry import MODELS
from PIL import Image
from torch import nn

import vfm_ss.datasets
import vfm_ss.evaluation
from vfm_ss.models.data_preprocessor import PaddingSegDataPreProcessor  # noqa: F401
from vfm_ss.models.segmentors.sliding_window import SlidingWindowEncoderDecoder  # noqa: F401

CONFIG = Path(__file__).parents[3] / "configs" / "_base_" / "datasets" / "ade20k.py"
assert vfm_ss.datasets, vfm_ss.evaluation


@MODELS.register_module(force=True)
class Identity8(nn.Module):
    """Mean colours of 8 x 8 pixels, with a parameter for what looks at devices."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (nn.functional.avg_pool2d(x, 8) + 0 * self.unused,)


@pytest.fixture
def cfg(tmp_path):
    """Images that are red, green and blue regions, whose class is their colour."""
    init_default_scope("mmseg")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k, size in enumerate([(128, 192), (320, 128), (160, 160), (100, 300)]):
            label = rng.integers(1, 4, (2, 3), dtype=np.uint8)
            label = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
            image = np.eye(3, dtype=np.uint8)[label - 1] * 255  # RGB
            for folder, array in (("images", image), ("annotations", label)):
                buffer = io.BytesIO()
                Image.fromarray(array).save(buffer, "PNG")
                suffix = "jpg" if folder == "images" else "png"
                archive.writestr(f"{folder}/validation/{k}.{suffix}", buffer.getvalue())
    cfg = Config.fromfile(CONFIG)
    cfg.test_pipeline[1].size = (64, 64)
    cfg.test_dataloader.num_workers = 0
    cfg.test_dataloader.persistent_workers = False
    cfg.test_dataloader.dataset.update(
        data_root=str(tmp_path / "x.zip"), pipeline=cfg.test_pipeline, metainfo=None
    )
    cfg.model = dict(
        type="SlidingWindowEncoderDecoder",
        data_preprocessor=dict(
            type="PaddingSegDataPreProcessor",
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
        ),
        backbone=dict(type="Identity8"),
        decode_head=dict(
            type="FCNHead",
            num_convs=0,
            concat_input=False,
            in_channels=3,
            channels=3,
            num_classes=150,
            dropout_ratio=0,
        ),
        test_cfg=dict(mode="slide", crop_size=(64, 64)),
    )
    return cfg


def build(cfg):
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.zero_()
        model.decode_head.conv_seg.bias.fill_(-9)
        model.decode_head.conv_seg.bias[:3] = 0
        for k in range(3):
            model.decode_head.conv_seg.weight[k, k] = 1
    model.cfg = cfg
    return model


@pytest.mark.parametrize("batch_size", [1, 4])
def test_validation_reads_colours_right(cfg, batch_size):
    """Right channels, scales, windows and classes: any slip lowers the score of this model."""
    model = build(cfg)
    loader = Runner.build_dataloader({**cfg.test_dataloader, "batch_size": batch_size}, seed=0)
    evaluator = Evaluator([cfg.val_evaluator])
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    assert metrics["mIoU"] > 90
    assert metrics["aAcc"] > 95


def test_inference_model_on_arrays_and_paths(cfg, tmp_path):
    model = build(cfg)
    image = np.zeros((90, 200, 3), np.uint8)
    image[:, :100, 2] = 255  # red in BGR
    image[:, 100:, 0] = 255  # blue
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image)
    from_path = inference_model(model, str(path)).pred_sem_seg.data[0]
    from_array = inference_model(model, image).pred_sem_seg.data[0]
    assert from_path.shape == (90, 200)
    assert torch.equal(from_path, from_array)
    assert (from_path[:, :94] == 0).all()
    assert (from_path[:, 106:] == 2).all()

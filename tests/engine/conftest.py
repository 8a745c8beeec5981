"""A run of a second: a toy model that drops units, its data and score, and all of our engine."""

import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from torch import nn

from vfm_ss.datasets.seeding import SampleIndex, sample_rng


@DATASETS.register_module(force=True)
class ToyDataset(BaseDataset):
    """Points with noise of their own."""

    METAINFO: ClassVar = dict(classes=("a", "b"))

    def load_data_list(self):
        folder = "val/" if getattr(self, "test_mode", False) else ""
        return [dict(x=float(k), img_path=f"{folder}{k}.jpg") for k in range(23)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        drawn = isinstance(info["sample_idx"], SampleIndex)  # else: validation
        rng = sample_rng(info) if drawn else np.random.default_rng(idx)
        noise = rng.normal(size=3).astype(np.float32)
        return dict(
            inputs=torch.from_numpy(noise + info["x"] / 23),
            data_samples=SegDataSample(metainfo=info),
        )


@DATASETS.register_module(force=True)
class ToyMaps(BaseDataset):
    """Random images of 32 x 32 whose halves are two classes."""

    METAINFO: ClassVar = dict(classes=("a", "b"))

    def load_data_list(self):
        return [dict(img_path=f"{k}.jpg", k=k) for k in range(23)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        generator = torch.Generator().manual_seed(info["k"])
        image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.zeros(1, 32, 32, dtype=torch.long)
        labels[:, :, 16 if info["k"] % 2 else 8 :] = 1
        image[:, labels[0] == 1] //= 2
        meta = dict(img_path=info["img_path"], img_shape=(32, 32), ori_shape=(32, 32))
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)
        return dict(inputs=image, data_samples=sample)


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Linear, dropout, linear."""

    def __init__(self, classes=2):
        super().__init__()
        self.backbone = nn.Linear(3, 8)
        self.decode_head = nn.Linear(8, classes)
        self.decode_head.num_classes = 2

    def forward(self, inputs, data_samples=None, mode="loss"):
        hidden = nn.functional.dropout(self.backbone(torch.stack(inputs)), 0.5, self.training)
        out = self.decode_head(hidden)
        return dict(loss=(out - 1).square().mean()) if mode == "loss" else list(out)


@METRICS.register_module(force=True)
class ToyScore(BaseMetric):
    """An mIoU, in percent, that depends on the weights."""

    def process(self, data_batch, data_samples):
        self.results += [float(sample.mean()) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mIoU=100 * float(np.tanh(np.mean(results)) ** 2))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """`toy(**changes)`: a runner on the toy, `train_cfg={...}` and the like changed."""
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # asks compilers, for seconds
    monkeypatch.setattr("os.fsync", lambda _: None)

    def make(
        work_dir="run",
        resume=False,
        load_from=None,
        steps=6,
        micro_batch=4,
        checkpoint=(),
        loop=(),
        **changes,
    ):
        for manager in (MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
        loader = dict(
            num_workers=changes.pop("workers", 0),
            # Serializing collects garbage, which takes longer than a training here.
            dataset=dict(type="ToyDataset", serialize_data=False),
            collate_fn=dict(type="pseudo_collate"),
        )
        hook = dict(type="AtomicCheckpointHook", by_epoch=False, interval=2, max_keep_ckpts=2)
        cfg = dict(
            model=dict(type="ToyModel"),
            work_dir=str(tmp_path / work_dir),
            train_dataloader=dict(loader, batch_size=16, sampler=dict(type="PositionSampler")),
            val_dataloader=dict(
                loader,
                dataset=dict(loader["dataset"], test_mode=True),
                sampler=dict(type="DefaultSampler", shuffle=False),
            ),
            train_cfg=dict(
                type="OptimStepTrainLoop",
                max_iters=steps,
                val_interval=3,
                micro_batch=micro_batch,
                **dict(loop),
            ),
            val_cfg=dict(type="ValLoop"),
            val_evaluator=dict(type="ToyScore"),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.05)),
            param_scheduler=dict(type="FullPolyLR", power=0.9, eta_min=0, by_epoch=False),
            default_hooks=dict(
                runtime_info=dict(type="AsyncRuntimeInfoHook"),
                logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
                checkpoint={**hook, "save_best": "mIoU", **dict(checkpoint)},
                record=dict(type="RecordHook"),
            ),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=0),
            default_scope="mmseg",
            resume=resume,
            load_from=load_from and str(load_from),
            experiment_name="toy",
        )
        cfg.update(changes)
        return Runner.from_cfg(Config(cfg))

    return make


def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is marked so in a process of its own.

    A test that forks cannot train in the child where an earlier one, such as an export, has made
    autograd start its threads.
    """
    if pyfuncitem.get_closest_marker("fresh_process") is None or "FRESH_PROCESS" in os.environ:
        return None
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    done = subprocess.run(
        command,
        cwd=pyfuncitem.config.rootpath,
        env={**env, "FRESH_PROCESS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True

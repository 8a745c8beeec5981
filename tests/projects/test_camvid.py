"""The outside project: its config inherits ours by package name, its labels map to 11 classes."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from vfm_ss.cli.main import main

PROJECT = Path(__file__).parents[2] / "projects" / "camvid"


@pytest.fixture
def root(tmp_path):
    label = np.repeat(np.arange(12, dtype=np.uint8), 4)[None].repeat(40, 0)
    for split in ("train", "val"):
        for kind, name, value in (("images", "a.jpg", label * 20), ("annotations", "a.png", label)):
            (tmp_path / kind / split).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / kind / split / name), value)
    return tmp_path


@pytest.mark.parametrize("name", ["dinov2_b16_linear_camvid", "tiny_b16_linear_camvid"])
def test_its_configs_build(name, root, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(PROJECT), *sys.path])
    cfg = Config.fromfile(PROJECT / "configs" / f"{name}.py")
    cfg.model.backbone.update(pretrained=False, depth=1)
    model = MODELS.build(cfg.model)
    assert model.decode_head.num_classes == 11
    crop = model.backbone.img_size
    model.cfg = cfg  # as mmseg's `init_model` does: the pipelines get the size
    assert model.test_cfg.crop_size == crop

    cfg.val_dataloader.dataset.data_root = str(root)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(dataset.metainfo["classes"]) == 11
    sample = dataset[0]
    assert sample["inputs"].shape[1] == crop[0]
    values, counts = np.unique(sample["data_samples"].gt_sem_seg.data, return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {**dict.fromkeys(range(11), 160), 255: 160}

    cfg.train_dataloader.dataset.data_root = str(root)
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert sample["inputs"].shape == (3, *crop)
    assert set(np.unique(sample["data_samples"].gt_sem_seg.data)) <= {*range(11), 255}


def test_its_data_file_reads_the_same_labels(root, monkeypatch):
    """The data file of sweeps against the class of the project."""
    monkeypatch.syspath_prepend(str(PROJECT))
    init_default_scope("mmseg")
    own = Config.fromfile(PROJECT / "configs" / "dinov2_b16_linear_camvid.py").val_dataloader
    file = Config.fromfile(PROJECT / "data.py").val_dataloader
    samples = []
    for cfg in (own.dataset, file.dataset):
        cfg.update(data_root=str(root), pipeline=[dict(type="LoadImage"), dict(type="LoadLabel")])
        dataset = DATASETS.build(cfg)
        samples.append((dataset.metainfo["classes"], dataset[0]["gt_seg_map"]))
    assert samples[0][0] == samples[1][0]
    assert np.array_equal(samples[0][1], samples[1][1])


def test_the_readme_shows_the_scores_of_the_records(capsys):
    """After adding records, print the table: vfm-ss rank projects/camvid/records --format md."""
    assert main(["rank", str(PROJECT / "records"), "--format", "md"]) == 0
    printed = capsys.readouterr().out
    scores = printed.split("## Mean IoU\n\n")[1].split("\n\n")[0]
    assert scores.count("\n") == 5, "four VFMs"
    assert scores in (PROJECT / "README.md").read_text()


def test_weights_that_are_not_there_are_one_line(monkeypatch, capsys):
    script = PROJECT / "weights.py"
    monkeypatch.setattr(sys, "argv", [str(script), "nowhere.pth", "weights"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("weights.py: error: pretrained weights nowhere.pth do not exist")
    assert err.count("\n") == 1

"""docs/own_data.md does what it says: its files, from a folder of images and masks to a ranking."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vfm_ss.cli import check_data, rank, train
from vfm_ss.protocol.records import read_record

DOC = Path(__file__).parents[1] / "docs" / "own_data.md"
CLASSES = {0: "soil", 1: "crop", 255: "weed"}
#: The doc's models at the size of a test.
TINY = [
    "model.backbone.embed_dim=32", "model.backbone.depth=1", "model.backbone.num_heads=2",
    "model.backbone.pretrained=False", "crop_size=(32,32)", "model.backbone.img_size=(32,32)",
    "train_cfg.max_iters=2", "train_cfg.val_interval=1", "train_cfg.micro_batch=16",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
    "default_hooks.checkpoint.interval=2",
]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the doc's files and the images and masks that they speak of."""
    for block in re.findall(r"```python\n# (\S+)\n(.*?)```", DOC.read_text(), re.DOTALL):
        name, text = block
        assert len(text.splitlines()) <= 10, f"{name} is longer than the doc promises"
        (tmp_path / name).write_text(text)
    rng = np.random.default_rng(0)
    for k in range(10):
        mask = rng.choice(list(CLASSES), (5, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        image = rng.integers(0, 256, (*mask.shape, 3), np.uint8)
        for folder, name, array in (("photos", f"{k}.jpg", image), ("masks", f"{k}.png", mask)):
            path = tmp_path / "fields" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_data_file_is_complete(project, capsys):
    assert check_data.main(["fields.py"]) == 0
    out = capsys.readouterr().out
    assert "train: FolderDataset in fields" in out
    assert "8 samples" in out
    assert "2 samples" in out


def test_the_config_trains_and_is_ranked(project, capsys):
    for backbone in ("DINOv2", "EVA02"):
        options = [*TINY, f"model.backbone.type={backbone}"]
        args = ["dinov2_b16_linear_fields.py", "--work-dir", f"work_dirs/{backbone}"]
        assert train.main([*args, "--cfg-options", *options]) == 0
    record = read_record("work_dirs/DINOv2/record.json")
    assert (record.status, record.train_dataset, record.eval_dataset) == (
        "finished",
        "fields",
        "fields",
    )
    assert list(record.iou) == list(CLASSES.values())
    assert record.data["train_samples"] == 8
    assert record.config["train_dataloader.dataset.fractions.train"] == 0.8
    capsys.readouterr()
    assert rank.main(["work_dirs"]) == 0
    table = capsys.readouterr().out
    assert "b16_linear_fields" in table
    assert "dinov2" in table.lower()
    assert "eva" in table.lower()

"""docs/own_data.md does what it says: its files, from a folder of images and masks to a ranking."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from vfm_ss.cli import check_data, test, train
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
    for place, values, count in (("fields", list(CLASSES), 10), ("night", [8, 9, 7], 3)):
        for k in range(count):
            mask = rng.choice(values, (5, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            image = rng.integers(0, 256, (*mask.shape, 3), np.uint8)
            for folder, name, array in (("photos", f"{k}.jpg", image), ("masks", f"{k}.png", mask)):
                path = tmp_path / place / folder / name
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


def test_check_data_reads_further_sets(project, capsys):
    shift = ["--cfg-options", "eval_data=night.py"]
    assert check_data.main(["fields.py", *shift]) == 0
    out = capsys.readouterr().out
    assert "night.py: FolderDataset in night" in out
    assert "| soil  |         8 |" in out
    text = (project / "night.py").read_text()
    (project / "night.py").write_text(
        text.replace('8: "soil"', '8: "snow"').replace('"soil"', '"snow"')
    )
    assert check_data.main(["fields.py", *shift]) == 1
    assert "class 0 is 'snow', the run's 'soil'" in capsys.readouterr().err
    assert check_data.main(["fields.py", "--cfg-options", "eval_data=nowhere"]) == 1
    assert "'nowhere' is neither one of acdc, ade20k," in capsys.readouterr().err


def test_one_training_and_two_evaluations(project, capsys):
    config, checkpoint = "dinov2_b16_linear_fields.py", "work_dirs/later/iter_2.pth"
    shift = [*TINY, "eval_data=night.py"]
    assert train.main([config, "--work-dir", "work_dirs/at-once", "--cfg-options", *shift]) == 0
    assert train.main([config, "--work-dir", "work_dirs/later", "--cfg-options", *TINY]) == 0
    logs = [path.parts[1] for path in Path("work_dirs").rglob("scalars.json")]
    assert sorted(logs) == ["at-once", "later"]  # though one process trained both
    args = ["--work-dir", "tested", "--eval-data", "night.py"]
    assert test.main([config, checkpoint, *args, "--out", "maps", "--cfg-options", *TINY]) == 0
    at_once, later = (read_record(f"work_dirs/{name}/record.json") for name in ("at-once", "later"))
    assert later.miou == at_once.miou
    assert later.config_hash == at_once.config_hash
    night = at_once.evaluations["night"]
    assert night["history"][-1] == [2, night["miou"]]
    # From the saved predictions, in the values of the night's masks, the same number again.
    metric = MulticlassJaccardIndex(3, "macro")
    for path in sorted((project / "maps").glob("*.png")):
        pair = [np.array(Image.open(p)) for p in (path, project / "night" / "masks" / path.name)]
        metric.update(
            *(torch.from_numpy(np.select([a == v for v in (8, 9, 7)], range(3))) for a in pair)
        )
    assert night["miou"] == pytest.approx(100 * metric.compute().item(), abs=1e-4)
    assert later.evaluations["night"] == night | {"history": night["history"][-1:]}
    # The config that is saved beside the record is the run's, too.
    saved = f"work_dirs/later/{config}"
    assert test.main([saved, checkpoint, "--work-dir", "tested", "--eval-data", "night.py"]) == 0
    assert read_record("work_dirs/later/record.json").evaluations == later.evaluations
    assert test.main([config, checkpoint, "--work-dir", "tested", "--eval-data", "night.py"]) == 1
    assert "is of another configuration than this config" in capsys.readouterr().err


def test_the_config_trains(project):
    args = ["dinov2_b16_linear_fields.py", "--work-dir", "trained"]
    assert train.main([*args, "--cfg-options", *TINY]) == 0
    record = read_record("trained/record.json")
    names = (record.status, record.train_dataset, record.eval_dataset)
    assert names == ("finished", "fields", "fields")
    assert list(record.iou) == list(CLASSES.values())
    assert record.data["train_samples"] == 8
    assert record.config["train_dataloader.dataset.shares.train"] == 0.8


@pytest.mark.slow
def test_one_file_and_two_commands_give_a_ranking(project):
    (block,) = re.findall(r"```bash\n(.*?)```", DOC.read_text(), re.DOTALL)
    sweep, rank = block.strip().splitlines()
    vfms = "--vfms all"
    assert vfms in sweep
    sweep = sweep.replace(vfms, "--vfms dinov2,mae") + " --seeds 0 --gpus-per-run 0 --cfg-options "
    run(sweep + " ".join(f"'{option}'" for option in TINY))
    table = run(rank)
    records = [read_record(path) for path in project.glob("work_dirs/*/seed0/record.json")]
    assert {record.vfm for record in records} == {"dinov2", "mae"}
    assert {record.setting for record in records} == {"b16_linear_fields"}
    for record in records:
        assert re.search(rf"{record.vfm} +{record.miou:.2f}", table)


def run(command):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["PYTHONPATH"] = str(DOC.parents[1])
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout

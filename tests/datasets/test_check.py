import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from vfm_ss.datasets.check import check_config
from vfm_ss.image_size import fill_image_size

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "_base_" / "datasets" / "ade20k.py"


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def ade20k(count=12):
    rng = np.random.default_rng(0)
    files = {}
    for split, short in (("training", "train"), ("validation", "val")):
        for k in range(count):
            stem = f"{split}/ADE_{short}_{k:08}"
            image = rng.integers(0, 256, (20, 30, 3), np.uint8)
            files[f"Main/images/{stem}.jpg"] = png(image)
            files[f"Main/annotations/{stem}.png"] = png(rng.integers(0, 151, (20, 30), np.uint8))
    return files


def write(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def run(path, capsys, **kwargs):
    options = {f"{s}_dataloader.dataset.data_root": str(path) for s in ("train", "val", "test")}
    status = check_config(str(CONFIG), options, **kwargs)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.fixture
def complete(monkeypatch):
    from vfm_ss.datasets import RawADE20KDataset

    counts = {"images/training": 12, "images/validation": 12}
    monkeypatch.setattr(RawADE20KDataset, "PUBLISHED", counts)


@pytest.mark.usefixtures("complete")
class TestComplete:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_good_data(self, tmp_path, capsys, workers):
        status, out = run(write(tmp_path / "x.zip", ade20k()), capsys, workers=workers)
        assert status == 0
        assert "12 samples (published: 12), 12 read" in out
        assert "data: complete and usable" in out
        assert out.count("RawADE20KDataset") == 2  # test is val

    @pytest.mark.parametrize("workers", [0, 2])
    def test_every_unusable_file_is_named(self, tmp_path, capsys, workers):
        files = ade20k()
        bad = {
            "Main/images/training/ADE_train_00000001.jpg": b"",
            "Main/annotations/training/ADE_train_00000003.png": png(
                np.full((20, 30), 200, np.uint8)
            ),
            "Main/annotations/training/ADE_train_00000004.png": png(np.ones((20, 31), np.uint8)),
        }
        files.update(bad)
        empty = "Main/annotations/training/ADE_train_00000006.png"
        files[empty] = png(np.zeros((20, 30), np.uint8))
        status, out = run(write(tmp_path / "x.zip", files), capsys, workers=workers)
        assert status == 1
        lines = [line for line in out.splitlines() if "UNUSABLE" in line]
        assert len(lines) == 3
        for name, line in zip(bad, lines, strict=True):
            assert Path(name).name in line
        assert "1 labels without a valid pixel, never used in training: ADE_train_00000006" in out

    def test_quick_reads_a_few(self, tmp_path, capsys):
        status, out = run(write(tmp_path / "x.zip", ade20k()), capsys, quick=True)
        assert status == 0
        assert "12 samples (published: 12), 8 read" in out


def test_incomplete_data(tmp_path, capsys):
    status, out = run(write(tmp_path / "x.zip", ade20k()), capsys)
    assert status == 1
    assert "INCOMPLETE: 12 of 20210 samples, get ADEChallengeData2016.zip" in out
    assert "INCOMPLETE: 12 of 2000 samples" in out


def test_missing_data_says_where_to_get_it(tmp_path, capsys):
    status, out = run(tmp_path / "none.zip", capsys)
    assert status == 1
    assert (
        "none.zip/images/training does not exist: put ADEChallengeData2016.zip (data.csail" in out
    )


@pytest.mark.slow
def test_command_line(tmp_path):
    write(tmp_path / "x.zip", ade20k())
    command = [sys.executable, str(ROOT / "tools" / "check_data.py"), str(CONFIG), "--cfg-options"]
    command += [
        f"{s}_dataloader.dataset.data_root={tmp_path}/x.zip" for s in ("train", "val", "test")
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "INCOMPLETE: 12 of 20210" in done.stdout


INTERRUPTED = """
import argparse, pathlib, sys, time
from vfm_ss.cli.call import call
from vfm_ss.datasets.check import check_dataset

class Slow:
    metainfo, backend_args = {}, None
    def __len__(self):
        return 1000
    def get_data_info(self, index):
        pathlib.Path("started").touch()
        time.sleep(0.5)
        return {"img_path": "nowhere.jpg"}

run = lambda args: check_dataset(Slow(), range(1000), workers=2)
sys.exit(call(run, argparse.ArgumentParser("check_data.py"), []))
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_check_with_workers_at_once(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 130, out
    assert out.endswith("check_data.py: interrupted\n")
    assert "Traceback" not in out


BASES = ["ade20k", "voc2012", "cityscapes", "gta2cityscapes", "bdd100k", "acdc"]


@pytest.mark.parametrize("name", BASES)
def test_base_configs_state_each_fact_once(name):
    cfg = Config.fromfile(CONFIG.with_name(f"{name}.py"))
    assert fill_image_size([cfg.train_pipeline, cfg.test_pipeline], None) == set()
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator.type == "MeanIoUMetric"
    expected = dict(ade20k=(150, 512), voc2012=(21, 512), cityscapes=(19, 1024))
    expected["gta2cityscapes"] = expected["acdc"] = expected["cityscapes"]
    expected["bdd100k"] = (19, 512)
    assert (cfg.num_classes, cfg.crop_size[0]) == expected[name]

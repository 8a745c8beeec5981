"""`vfm-ss test`: augmentation, speed, and images without labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from vfm_ss.cli.test import main
from vfm_ss.engine import launch, speed
from vfm_ss.engine.predict import predict
from vfm_ss.models.segmentors import VFMEncoderDecoder
from vfm_ss.protocol.records import read_record

CHECKPOINT = "run/iter_2.pth"
IMAGES = "data/ade/images/validation"


@pytest.fixture
def trained(project, monkeypatch):
    """Enter a project with a run of two steps in `run`; images differ in size."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    for k, size in enumerate([(96, 72), (72, 96), (130, 80)]):
        for path in (f"{IMAGES}/{k}.jpg", f"data/ade/annotations/validation/{k}.png"):
            Image.open(path).resize(size, Image.NEAREST).save(path)
    config = Path("tiny.py").read_text()
    Path("tiny.py").write_text(config.replace("max_iters=4", "max_iters=2"))
    launch.train("tiny.py", work_dir="run")
    return project


def scores(work_dir):
    (found,) = Path(work_dir).glob("*/2*.json")
    return json.loads(found.read_text())


def label(folder, k):
    return np.asarray(Image.open(Path(folder, f"{k}.png")))


def test_tta_is_mmsegs_and_is_recorded_apart(trained):
    plain = read_record("run/record.json")
    launch.test("tiny.py", CHECKPOINT, work_dir="ours", out="ours_out", tta=True)
    record = read_record("run/record.json")
    assert record.tta["miou"] == scores("ours")["mIoU"]
    assert record.tta["miou"] != plain.miou
    assert (record.tta["step"], record.tta["augmentations"]) == (2, 8)
    assert record.tta["iou"].keys() == plain.iou.keys()
    record.tta = None
    assert record == plain

    # mmseg's own model, an image at a time as it needs.
    theirs = {"tta_model.type": "SegTTAModel", "test_dataloader.batch_size": 1}
    launch.test("tiny.py", CHECKPOINT, theirs, work_dir="theirs", out="theirs_out", tta=True)
    launch.test("tiny.py", CHECKPOINT, work_dir="plain", out="plain_out")
    for k in range(3):
        same = label("ours_out", k) == label("theirs_out", k)
        assert same.mean() > 0.999
        assert not np.array_equal(label("ours_out", k), label("plain_out", k))
    assert scores("ours")["mIoU"] == pytest.approx(scores("theirs")["mIoU"], abs=0.05)
    assert scores("plain")["mIoU"] == plain.miou


def test_a_flip_alone_is_turned_back(trained):
    cfg = Config.fromfile("tiny.py")
    steps = cfg.tta_pipeline[1].transforms
    steps[0], steps[1] = steps[0][:1], steps[1][1:]
    for direction in ("horizontal", "vertical", "diagonal"):
        steps[1][0].direction = direction
        cfg.dump("flipped.py")
        launch.test("flipped.py", CHECKPOINT, work_dir=direction, out=f"{direction}_out", tta=True)
        for k in range(3):
            image = Image.open(f"{IMAGES}/{k}.jpg").convert("RGB")
            Path(direction, "turned").mkdir(exist_ok=True)
            pixels = np.asarray(image)
            axes = {"horizontal": 1, "vertical": 0, "diagonal": (0, 1)}[direction]
            Image.fromarray(np.flip(pixels, axes)).save(f"{direction}/turned/{k}.png")
        predict("tiny.py", CHECKPOINT, [f"{direction}/turned"], f"{direction}/maps", workers=0)
        for k in range(3):
            expected = np.flip(label(f"{direction}/maps", k), axes)
            assert (label(f"{direction}_out", k) == expected).mean() > 0.999


def test_tta_of_a_smaller_image_than_the_networks_is_refused(trained, capsys):
    options = ["--cfg-options", "tta_pipeline.1.transforms.0.0.scale=0.5"]
    assert main(["tiny.py", CHECKPOINT, "--tta", *options]) == 1
    assert "smaller than the network's input; scales begin at 1.0" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--fps", "--tta"], ["--fps", "--eval-data", "acdc"]])
def test_what_does_not_go_with_speed(trained, arguments, capsys):
    assert main(["tiny.py", CHECKPOINT, *arguments]) == 2
    assert "--fps cannot be combined with" in capsys.readouterr().err


def test_speed_is_measured_after_a_warm_up_and_recorded(trained, monkeypatch):
    seconds, now = {1: 0.25, 2: 0.4}, [0.0]
    calls = []

    def clock():
        return now[0]

    def step(self, data):
        calls.append(len(data["inputs"]))
        warm = calls.count(calls[-1]) > 5
        now[0] += seconds[calls[-1]] if warm else 99.0
        assert {tuple(image.shape) for image in data["inputs"]} == {(3, 64, 64)}
        assert {image.dtype for image in data["inputs"]} == {torch.uint8}
        return real(self, data)

    plain = read_record("run/record.json")
    real = VFMEncoderDecoder.test_step
    model = launch.measure_speed

    def measured(*args):
        monkeypatch.setattr(speed.time, "perf_counter", clock)
        monkeypatch.setattr(VFMEncoderDecoder, "test_step", step)
        try:
            return model(*args)
        finally:
            monkeypatch.undo()
            monkeypatch.chdir(trained)

    monkeypatch.setattr(launch, "measure_speed", measured)
    options = {"test_dataloader.batch_size": 2}
    launch.test("tiny.py", CHECKPOINT, options, work_dir="fps", fps=True)
    record = read_record("run/record.json")
    assert record.speed == {
        "images_per_second": pytest.approx(5.0),
        "latency_seconds": pytest.approx(0.25),
        "peak_memory_mb": None,
        "batch_size": 2,
        "image_size": [64, 64],
        "device": record.device,
        "precision": "fp32",
    }
    assert calls.count(1) >= 10
    record.speed = None
    assert record == plain


class TestWithoutLabels:
    OPTIONS = ("--cfg-options", "test_dataloader.dataset.data_prefix.seg_map_path=None")

    def test_predictions_are_saved_and_one_line_says_so(self, trained, capsys):
        launch.test("tiny.py", CHECKPOINT, work_dir="labelled", out="expected")
        capsys.readouterr()
        assert main(["tiny.py", CHECKPOINT, "--out", "out", "--work-dir", "w", *self.OPTIONS]) == 0
        out = " ".join("".join(capsys.readouterr()).split())
        assert "There are no scores: the images have no labels." in out
        assert "mIoU" not in out.split("There are no scores")[1]
        for k in range(3):
            assert np.array_equal(label("out", k), label("expected", k))

    def test_nothing_to_do_it_with_is_said(self, trained, capsys):
        assert main(["tiny.py", CHECKPOINT, *self.OPTIONS]) == 1
        error = capsys.readouterr().err
        assert "0.jpg: the image has no label, so there is no score" in error
        assert "Traceback" not in error

    def test_format_only_as_in_mmseg(self, trained, capsys):
        options = ["--cfg-options", "test_evaluator.format_only=True"]
        assert main(["tiny.py", CHECKPOINT, *options]) == 2
        assert "format_only=True saves predictions: say where" in capsys.readouterr().err
        assert main(["tiny.py", CHECKPOINT, *options, "test_evaluator.output_dir=maps"]) == 0
        assert "There are no scores: format_only=True." in "".join(capsys.readouterr())
        assert len(list(Path("maps").glob("*.png"))) == 3


def test_the_saved_config_is_that_of_the_run_beside_it(trained):
    saved = Path("run/tiny.py")
    before = saved.read_bytes()
    assert Config.fromfile(saved).train_cfg.max_iters == 2
    launch.test("tiny.py", CHECKPOINT, {"test_dataloader.batch_size": 1}, work_dir="run")
    other = {"train_cfg.max_iters": 3}
    with pytest.raises(ValueError, match="is of another run"):
        launch.train("tiny.py", other, work_dir="run", resume="auto")
    with pytest.raises(ValueError, match="of an earlier run; go on with it by --resume"):
        launch.train("tiny.py", other, work_dir="run")
    assert saved.read_bytes() == before
    taken = {**other, "default_hooks.checkpoint.same_config": False}
    launch.train("tiny.py", taken, work_dir="run", resume="auto")
    assert Config.fromfile(saved).train_cfg.max_iters == 3

"""Predictions without labels: equal to those of a test, whatever the files and their names."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from PIL import Image
from torch.nn.functional import interpolate

from vfm_ss.cli.predict import main
from vfm_ss.datasets import RawADE20KDataset
from vfm_ss.datasets.transforms.resize import resize_image
from vfm_ss.engine import launch
from vfm_ss.models.segmentors.sliding_window import window_starts

SIZES = [(72, 96), (96, 72), (40, 130)]


@pytest.fixture
def entered(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    monkeypatch.setattr("os.fsync", lambda _: None)
    return project


def save_model(config="tiny.py", name="iter_1.pth", seed=0, **meta):
    """Save a model whose predictions differ from pixel to pixel."""
    cfg = Config.fromfile(config)
    init_default_scope("mmseg")
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    if config == "tiny.py":
        for parameter in model.decode_head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    Path("run").mkdir(exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(iter=1, **meta)), f"run/{name}")
    return model.eval()


def photos(folder, names):
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (*SIZES[k % 3], 3)
        smooth = interpolate(torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 5))), shape[:2])
        noise = rng.normal(0, 20, shape)
        pixels = smooth[0].permute(1, 2, 0).numpy() + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def predict(*args, checkpoint="run/iter_1.pth", status=0):
    assert main(["tiny.py", checkpoint, "--workers", "0", *map(str, args)]) == status


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def same_files(one, other):
    assert files(one) == files(other)
    return all(
        np.array_equal(Image.open(Path(one, f)), Image.open(Path(other, f))) for f in files(one)
    )


def test_equal_to_a_test_from_both_kinds_of_checkpoint(entered):
    launch.train("tiny.py", {"train_cfg.max_iters": 2}, work_dir="run")
    folder = "data/ade/images/validation"
    (best,) = Path("run").glob("best_mIoU*.pth")
    for checkpoint in ("run/iter_2.pth", str(best)):
        launch.test("tiny.py", checkpoint, work_dir="test", out="expected")
        predict(folder, "--out", "out", checkpoint=checkpoint)
        assert len(files("out")) == 3
        assert same_files("out", "expected")
        for name in ("out", "expected"):
            shutil.rmtree(name)


def test_equal_to_a_test_on_varied_classes_and_sizes(entered):
    save_model()
    for path in Path("data/ade/images/validation").iterdir():
        path.unlink()
    for path in Path("data/ade/annotations/validation").iterdir():
        path.unlink()
    names = ["0.jpg", "1.jpg", "2.jpg"]
    photos("data/ade/images/validation", names)
    for k, name in enumerate(names):
        path = Path("data/ade/annotations/validation", name).with_suffix(".png")
        Image.fromarray(np.full(SIZES[k], 3, np.uint8)).save(path)
    launch.test("tiny.py", "run/iter_1.pth", work_dir="test", out="expected")
    for size in (1, 2, 16):
        predict("data/ade/images/validation", "--out", f"out{size}", "--batch-size", size)
        assert same_files(f"out{size}", "expected")
    assert len(np.unique(Image.open("out1/0.png"))) > 3


def test_names_keep_their_folders_and_nothing_is_replaced(entered, capsys):
    save_model()
    photos("photos", ["a/1.jpg", "b/1.png", "b/c/1.webp", "2.jpeg"])
    Path("photos/notes.txt").write_text("no image")
    photos("photos/.hidden", ["3.jpg"])
    predict("photos", "--out", "photos/out")
    assert files("photos/out") == ["2.png", "a/1.png", "b/1.png", "b/c/1.png"]
    predict("photos/a", "photos/2.jpeg", "--out", "out")
    assert files("out") == ["1.png", "2.png"]

    before = {f: Path("photos/out", f).stat().st_mtime_ns for f in files("photos/out")}
    capsys.readouterr()
    predict("photos", "--out", "photos/out", status=2)
    assert "exists: choose another --out, or --skip-existing" in capsys.readouterr().err
    Path("photos/out/b/1.png").unlink()
    predict("photos", "--out", "photos/out", "--skip-existing")
    assert "4 images, 3 of them done before" in capsys.readouterr().out
    after = {f: Path("photos/out", f).stat().st_mtime_ns for f in files("photos/out")}
    assert [f for f in after if after[f] != before.get(f)] == ["b/1.png"]
    # An image without its painting is not done.
    predict("photos", "--out", "photos/out", "--skip-existing", "--overlay")
    assert len(files("photos/out/overlay")) == 4
    # Nor is an image its own label map.
    before = Path("photos/b/1.png").read_bytes()
    for more in ((), ("--overlay",)):
        predict("photos/b/1.png", "--out", "photos/b", "--skip-existing", *more, status=2)
        assert "photos/b/1.png is one of the images" in capsys.readouterr().err
    assert Path("photos/b/1.png").read_bytes() == before

    for args, message in {
        ("photos/a", "photos/b", "--out", "x"): "1.png would be the result of photos/a/1.jpg and",
        ("photos", "--out", "photos"): "is the folder of images photos or around it",
        ("photos", "--out", "."): "is the folder of images photos or around it",
        ("nowhere", "--out", "x"): "nowhere does not exist",
        ("run", "--out", "x"): "there is no image in run",
    }.items():
        predict(*args, status=2)
        assert message in capsys.readouterr().err
    assert not Path("x").exists()


def test_files_that_cannot_be_read_are_named_and_the_rest_is_done(entered, capsys):
    save_model()
    photos("photos", ["1.jpg", "2.png", "3.jpg", "4.png"])
    Path("photos/0.jpg").write_bytes(Path("photos/1.jpg").read_bytes()[:300])
    Path("photos/5.png").write_bytes(b"")
    Image.fromarray(np.zeros((30, 30), np.uint16) + 999).save("photos/deep.png")
    os.mkfifo("photos/pipe.png")  # reading it would never end
    photos("more", ["6.png"])
    Path("more/text.dat").write_text("no image")
    for workers in ("0", "2"):
        predict(
            "photos",
            "more/6.png",
            "more/text.dat",
            "--out",
            workers,
            "--workers",
            workers,
            status=1,
        )
        out, err = capsys.readouterr()
        named = [line.split(":")[1].strip() for line in err.splitlines() if "not predicted" in line]
        bad = ["0.jpg", "5.png", "deep.png", "pipe.png"]
        assert sorted(named) == ["more/text.dat", *(f"photos/{name}" for name in bad)]
        assert "has 16-bit numbers" in err
        assert "5 images predicted, 5 not" in out
        assert files(workers) == ["1.png", "2.png", "3.png", "4.png", "6.png"]
    assert same_files("0", "2")


def test_images_are_read_as_stored(entered, capsys):
    save_model()
    photos("photos", ["1.jpg"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Path("turned").mkdir()
    image = Image.open("photos/1.jpg").convert("RGB")
    image.save("turned/1.jpg", exif=exif)
    image.save("photos/1.jpg")
    predict("photos", "--out", "plain", "--overlay")
    assert "EXIF" not in capsys.readouterr().out
    predict("turned", "--out", "out", "--overlay")
    assert "1 images say in EXIF that they are shown turned" in capsys.readouterr().out
    assert same_files("plain", "out")


def test_paintings_show_the_classes_and_their_share(entered):
    save_model()
    photos("photos", ["1.png", "2.png"])
    predict("photos", "--out", "out", "--overlay")
    palette = np.array(RawADE20KDataset.METAINFO["palette"])
    for name in ("1.png", "2.png"):
        label = np.asarray(Image.open(f"out/{name}")) - 1
        image = np.asarray(Image.open(f"photos/{name}")).astype(float)
        painted = np.asarray(Image.open(f"out/overlay/{name}"))
        height, width = label.shape
        assert np.abs(painted[:height, :width] - (image + palette[label]) / 2).max() <= 0.5
        legend = painted[:, width:].reshape(-1, 3)
        for k in np.unique(label):
            assert (legend == palette[k]).all(-1).any(), "a square of its colour"


@pytest.mark.parametrize("config", ["tiny.py", "m2f.py"])
def test_probabilities_are_those_of_mmsegs_logits(entered, config):
    model = save_model(config)
    photos("photos", ["1.png", "2.png", "3.png"])
    arguments = [config, "run/iter_1.pth", "photos", "--out", "out", "--probabilities"]
    assert main([*arguments, "--workers", "0"]) == 0
    for k in (1, 2, 3):
        found = np.load(f"out/probabilities/{k}.npz")
        shares, label = found["probabilities"], np.asarray(Image.open(f"out/{k}.png")) - 1
        assert (shares.dtype, shares.shape) == (np.float16, (150, *label.shape))
        assert found["classes"][:2].tolist() == ["wall", "building"]
        top = shares.max(0)
        assert (np.take_along_axis(shares, label[None].astype(int), 0)[0] >= top - 1e-3).all()
        assert np.abs(shares.astype(float).sum(0) - 1).max() < 2e-2
        expected = reference(model, np.asarray(Image.open(f"photos/{k}.png")), config == "m2f.py")
        assert np.abs(shares - expected).max() < 2e-3


def reference(model, image, scores):
    """Average logits of windows and resize them as mmseg does, in one piece."""
    factor = 64 / min(image.shape[:2])
    size = tuple(round(side * factor) for side in image.shape[:2])
    inputs = torch.from_numpy(resize_image(image, size).copy()).permute(2, 0, 1)[None].float()
    processor = model.data_preprocessor
    inputs = (inputs - processor.mean) / processor.std
    total, count = torch.zeros(1, 150, *size), torch.zeros(size)
    with torch.no_grad():
        for y in window_starts(size[0], 64):
            for x in window_starts(size[1], 64):
                window = inputs[..., y : y + 64, x : x + 64]
                meta = dict(ori_shape=(64, 64), img_shape=(64, 64), pad_shape=(64, 64))
                total[..., y : y + 64, x : x + 64] += EncoderDecoder.encode_decode(
                    model, window, [meta]
                )
                count[y : y + 64, x : x + 64] += 1
    logits = interpolate(total / count, image.shape[:2], mode="bilinear")[0].double()
    return (logits / logits.sum(0) if scores else logits.softmax(0)).numpy()


@pytest.mark.parametrize("data", ["cityscapes", "voc2012", "gta2cityscapes"])
def test_stored_values_without_the_data_set(entered, data):
    text = Path("tiny.py").read_text().replace("ade20k.py", f"{data}.py")
    Path("tiny.py").write_text(text.replace('data_root = "data/ade"', 'data_root = "nowhere"'))
    save_model()
    photos("photos", ["1.png"])
    predict("photos", "--out", "out")
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    stored = set(np.unique(Image.open("out/1.png")))
    assert stored <= set(range(21) if data == "voc2012" else ids)
    assert len(stored) > 2


def test_a_checkpoint_of_other_classes_or_another_model_is_refused(entered, capsys):
    photos("photos", ["1.png"])
    for meta, name, message in (
        (dict(dataset_meta=dict(classes=["a"] * 150)), "classes.pth", "was trained on the classes"),
        ({}, "m2f.pth", "is of another model"),
    ):
        save_model("m2f.py" if name == "m2f.pth" else "tiny.py", name, **meta)
        predict("photos", "--out", "out", checkpoint=f"run/{name}", status=1)
        assert message in capsys.readouterr().err
    tiny = Path("tiny.py").read_text()
    Path("tiny.py").write_text(tiny.replace("depth=2", "depth=3"))
    save_model(name="deep.pth")
    Path("tiny.py").write_text(tiny)
    predict("photos", "--out", "out", checkpoint="run/deep.pth", status=1)
    assert "lacks, such as backbone.vit.blocks.2." in capsys.readouterr().err
    predict("photos", "--out", "out", checkpoint="run/nowhere.pth", status=1)
    assert "run/nowhere.pth" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("device", ["banana", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(entered, capsys, device):
    save_model()
    photos("photos", ["1.png"])
    predict("photos", "--out", "out", "--device", device, status=2)
    assert f"error: --device {device} cannot be used: " in capsys.readouterr().err

"""Examples for the report: saved by a training, or afterwards by `vfm-ss test --examples`."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from vfm_ss.cli.test import main
from vfm_ss.engine import launch
from vfm_ss.engine.hooks import SaveExamplesHook
from vfm_ss.protocol.examples import EXAMPLES_NAME, read_examples
from vfm_ss.protocol.identity import config_hash, identity
from vfm_ss.protocol.records import read_record

FILE = Path("run", EXAMPLES_NAME)
CHECKPOINT = "run/iter_2.pth"
ADE = Path("data/ade")


@pytest.fixture
def trained(project, monkeypatch):
    """Enter a project with a run of two steps in `run`; the second image is larger than shown."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    for kind, end in (("images", "jpg"), ("annotations", "png")):
        path = ADE / kind / "validation" / f"1.{end}"
        Image.open(path).resize((768, 576), Image.NEAREST).save(path)
    config = Path("tiny.py").read_text().replace("max_iters=4, val_interval=2", "max_iters=2")
    Path("tiny.py").write_text(config + "train_cfg['val_interval'] = 1\n")
    options = {"default_hooks.checkpoint.interval": 1}
    launch.train("tiny.py", options, work_dir="run")
    return project


def pixels(one, kind):
    return np.asarray(Image.open(io.BytesIO(one.file(kind))))


def test_they_are_the_validations_and_a_test_makes_them_again(trained, capsys):
    found, record = read_examples(FILE), read_record("run/record.json")
    assert found.foreign_to(record, 2, record.miou) is None
    assert [one.name for one in found.examples] == ["0.jpg", "1.jpg", "2.jpg"]
    assert (found.images, len(found.classes)) == (3, 150)

    launch.test("tiny.py", CHECKPOINT, work_dir="test", out="maps")
    for k, one in enumerate(found.examples):
        predicted = np.asarray(Image.open(f"maps/{k}.png")).astype(int) - 1
        label = np.asarray(Image.open(ADE / f"annotations/validation/{k}.png")).astype(int) - 1
        photo = Image.open(ADE / f"images/validation/{k}.jpg")
        step = 2 if k == 1 else 1  # 768 pixels are shown as 384: each second one
        for kind, whole in (("prediction", predicted), ("label", label % 256)):
            shown = pixels(one, kind)
            at = [whole[i::step, j::step] for i in range(step) for j in range(step)]
            assert any(np.array_equal(shown, part) for part in at)
        photo = np.asarray(photo.convert("RGB").reduce(step)).astype(int)
        assert np.abs(pixels(one, "photo") - photo).mean() < 6  # JPEG
        counted = label >= 0
        ious = [
            100 * np.sum(counted & (predicted == c) & (label == c)) / union
            for c in range(150)
            if (union := np.sum(counted & ((predicted == c) | (label == c))))
        ]
        assert one.miou == pytest.approx(np.mean(ious))

    before = FILE.read_bytes()
    FILE.unlink()
    assert main(["tiny.py", CHECKPOINT, "--examples", "--work-dir", "test"]) == 0
    assert FILE.read_bytes() == before
    # An earlier checkpoint's have its own score: no report takes them for the last.
    launch.test("tiny.py", "run/iter_1.pth", work_dir="test", examples=True)
    first = read_examples(FILE)
    assert (first.step, first.miou) == tuple(record.history[0])
    assert first.foreign_to(record, 2, record.miou).startswith("its step is 1")

    # Other predictions than the score's are refused.
    FILE.unlink()
    other = "test_dataloader.dataset.data_prefix.img_path=images/training"
    assert main(["tiny.py", CHECKPOINT, "--examples", "--cfg-options", other]) == 2
    assert "test_dataloader is another set than val_dataloader" in capsys.readouterr().err
    for k in range(3):  # the images themselves have changed since
        path = ADE / f"images/validation/{k}.jpg"
        Image.fromarray(255 - np.asarray(Image.open(path).convert("RGB"))).save(path)
        path = ADE / f"annotations/validation/{k}.png"
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 7, 9).astype(np.uint8)).save(
            path
        )
    assert main(["tiny.py", CHECKPOINT, "--examples"]) == 1
    assert "these are not the predictions of that score" in capsys.readouterr().err
    Path("run/record.json").unlink()
    assert main(["tiny.py", CHECKPOINT, "--examples"]) == 2
    assert "--examples needs the record.json" in capsys.readouterr().err
    assert main(["tiny.py", CHECKPOINT, "--examples", "--tta"]) == 2
    assert "--examples cannot be combined with" in capsys.readouterr().err
    assert not FILE.exists()


def test_what_cannot_be_shown_ends_no_training(tmp_path, monkeypatch):
    monkeypatch.setattr("vfm_ss.engine.hooks.examples_hook.is_training", lambda runner: True)
    data = SimpleNamespace(metainfo={}, get_data_info=None, data_prefix={}, data_root="x")
    told = []
    runner = SimpleNamespace(
        work_dir=tmp_path,
        iter=2,
        logger=SimpleNamespace(warning=told.append),
        val_dataloader=SimpleNamespace(dataset=data),
    )
    hook = SaveExamplesHook()
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, [SimpleNamespace(img_path="a.jpg")])
    hook.after_val_epoch(runner, {})
    assert len(told) == 1
    assert told[0].startswith("No examples are saved for the report: TypeError: ")
    assert list(tmp_path.iterdir()) == []


def test_the_hook_is_no_part_of_the_configuration():
    leaf = Path(__file__).parents[2] / "configs" / "vfm" / "dinov2_b16_linear_ade20k.py"
    cfg = Config.fromfile(leaf)
    assert cfg.default_hooks.examples.type == "SaveExamplesHook"
    whole = config_hash(identity(cfg))
    del cfg.default_hooks["examples"]
    assert config_hash(identity(cfg)) == whole
    with pytest.raises(ValueError, match="count=17, expected 0 to 16"):
        SaveExamplesHook(count=17)

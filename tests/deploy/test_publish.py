"""A published folder: it loads as users of mmseg load, gives the same results, tells no places."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from mmseg.registry import MODELS
from safetensors.torch import load_file

from vfm_ss.cli import main
from vfm_ss.protocol.identity import config_hash, identity

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = "{root}/projects/camvid/configs/tiny_b16_linear_camvid.py"
model = dict(backbone=dict(img_size=(32, 32), depth=1))
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}")
)
"""
CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip


@pytest.fixture
def run_dir(tmp_path, monkeypatch, make_record):
    """What a training leaves: config, a checkpoint with an optimiser, a record; and its data."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "projects" / "camvid"), *sys.path])
    rng = np.random.default_rng(0)
    for kind, suffix, value in (
        ("images", "jpg", rng.integers(0, 256, (40, 50, 3))),
        ("annotations", "png", rng.integers(0, 12, (40, 50))),
    ):
        folder = tmp_path / "data" / kind / "val"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"a.{suffix}"), value.astype(np.uint8))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG.format(root=ROOT, data=tmp_path / "data"))
    cfg = Config.fromfile(folder / "config.py")
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=[[k, k, k] for k in range(11)]))
    meta |= dict(cfg="raise SystemExit", seed=0, time="now", iter=80)
    saved = dict(meta=meta, state_dict=model.state_dict(), optimizer=dict(state={}))
    torch.save(saved, folder / "iter_80.pth")
    config = identity(cfg)
    record = make_record(
        vfm="vit_tiny@random", step=80, max_steps=80, history=[[40, 12.25], [80, 34.5]],
        miou=34.5, best_miou=34.5, effective_batch=16, config=config,
        config_hash=config_hash(config), remarks=["a remark"],
        weights=dict(source=str(tmp_path / "secret" / "file.pth"), sha256="ab" * 32),
    )  # fmt: skip
    (folder / "record.json").write_text(json.dumps(asdict(record)))
    return folder


def publish(run_dir, *args, capsys, out="published"):
    out = run_dir.parent / out
    command = ["publish", run_dir / "config.py", run_dir / "iter_80.pth", "--out", out, *args]
    status = main.main(list(map(str, command)))
    said = capsys.readouterr()
    return out, status, said.out.splitlines(), said.err.strip().splitlines()


def test_what_is_in_the_folder(run_dir, capsys):
    out, status, lines, _ = publish(run_dir, "--licence", "mit", capsys=capsys)
    assert status == 0
    names = ["README.md", "config.py", "model.safetensors", "record.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert lines[-1] == f"to upload: hf upload USER/published {out}"
    weights = load_file(out / "model.safetensors")
    expected = torch.load(run_dir / "iter_80.pth")["state_dict"]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    for name in ("README.md", "config.py", "record.json"):
        assert str(run_dir.parent) not in (out / name).read_text()
    assert json.loads((out / "record.json").read_text())["weights"]["source"] == "file.pth"
    assert Config.fromfile(out / "config.py").test_dataloader.dataset.data_root == "data"


def test_the_model_card(run_dir, capsys):
    out, *_ = publish(run_dir, "--licence", "dinov3-license", capsys=capsys)
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "other"
    assert card.data.license_name == "dinov3-license"
    assert card.data.pipeline_tag == "image-segmentation"
    for text in ("34.50 % on ade20k", "a remark", "step 80", "imports camvid", "ab" * 32):
        assert text in card.text, text
    (run_dir / "iter_80.pth").rename(run_dir / "best.pth")
    (run_dir / "best.pth").rename(run_dir / "iter_79.pth")
    command = ["publish", run_dir / "config.py", run_dir / "iter_79.pth", "--out", out.parent / "b"]
    assert main.main(list(map(str, command))) == 0
    text = (out.parent / "b" / "README.md").read_text()
    assert "not measured at this step" in text
    assert "34.5" not in text
    assert "license:" not in text
    assert "random weights" in text


def test_it_gives_the_same_results(run_dir, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # asks compilers, for seconds
    out, *_ = publish(run_dir, capsys=capsys)
    image = np.random.default_rng(1).integers(0, 256, (3, 32, 48), dtype=np.uint8)
    results = []
    for config, weights in (
        (run_dir / "config.py", run_dir / "iter_80.pth"),
        (out / "config.py", out / "model.safetensors"),
    ):
        model = init_model(str(config), str(weights), device="cpu")
        assert tuple(model.dataset_meta["classes"]) == CLASSES
        assert len(model.dataset_meta["palette"]) == 11
        model.test_cfg.seg_logits = True
        with torch.no_grad():
            (sample,) = model.test_step(dict(inputs=[torch.from_numpy(image)]))
        labels = tmp_path / f"labels{len(results)}"
        options = ["--cfg-options", f"test_dataloader.dataset.data_root={tmp_path / 'data'}"]
        paths = ["--work-dir", str(tmp_path / "work"), "--out", str(labels)]
        assert main.main(["test", str(config), str(weights), *paths, *options]) == 0
        results.append((sample.seg_logits.data, cv2.imread(str(labels / "a.png"), -1)))
    (logits, label), (published_logits, published_label) = results
    assert torch.equal(logits, published_logits)
    np.testing.assert_array_equal(label, published_label)
    assert len(np.unique(label)) > 1


def test_what_does_not_belong_together_is_refused(run_dir, capsys):
    record = run_dir / "record.json"
    values = json.loads(record.read_text())
    changed = {**values["config"], "optim_wrapper.optimizer.lr": 0.5}
    values |= dict(config=changed, config_hash=config_hash(changed))
    record.write_text(json.dumps(values))
    out, status, _, (line,) = publish(run_dir, capsys=capsys)
    assert status == 1
    assert "another configuration" in line
    assert "optim_wrapper.optimizer.lr was 0.5, is 0.001" in line
    record.unlink()
    out, status, lines, _ = publish(run_dir, capsys=capsys)
    assert status == 0
    assert any("no record" in line for line in lines)
    _, status, _, (line,) = publish(run_dir, capsys=capsys)
    assert (status, "exists; name a folder that does not" in line) == (2, True)
    loaded = torch.load(run_dir / "iter_80.pth")
    loaded["state_dict"].popitem()
    torch.save(loaded, run_dir / "iter_80.pth")
    out, status, _, (line,) = publish(run_dir, capsys=capsys, out="other")
    assert (status, out.exists(), "is of another model" in line) == (1, False, True)
    assert not list(run_dir.parent.glob(".other*"))


def test_the_licence_is_that_of_the_vfm(trained, tmp_path, capsys):
    config, checkpoint = trained(dict(type="MAE", img_size=(32, 32), depth=1))
    config.write_text(config.read_text().replace("pretrained=False", "pretrained=True"))
    command = ["publish", config, checkpoint, "--out", tmp_path / "mae"]
    assert main.main(list(map(str, command))) == 0
    assert "licence cc-by-nc-4.0, that of MAE's published weights" in capsys.readouterr().out
    assert ModelCard.load(tmp_path / "mae" / "README.md").data.license == "cc-by-nc-4.0"


@pytest.mark.parametrize("merge", [False, True])
def test_a_model_with_adapters(merge, trained, tmp_path, capsys):
    backbone = dict(type="TimmViT", model_name="vit_tiny_patch16_224", img_size=(32, 48), depth=1)
    config, checkpoint = trained(dict(backbone, lora=dict(r=2)))
    command = ["publish", config, checkpoint, "--out", tmp_path / "x", *["--merge-lora"] * merge]
    assert main.main(list(map(str, command))) == 0
    names = load_file(tmp_path / "x" / "model.safetensors").keys()
    assert any("lora_" in name for name in names) is not merge
    outputs = []
    for files in (
        (config, checkpoint),
        (tmp_path / "x/config.py", tmp_path / "x/model.safetensors"),
    ):
        model = init_model(*map(str, files), device="cpu")
        with torch.no_grad():
            outputs.append(
                model.encode_decode(torch.ones(1, 3, 32, 48), [dict(img_shape=(32, 48))])
            )
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5 if merge else 0)
    if merge:
        assert "lora" not in Config.fromfile(tmp_path / "x" / "config.py").model.backbone
        command = ["publish", tmp_path / "x/config.py", tmp_path / "x/model.safetensors"]
        command += ["--out", tmp_path / "y", "--merge-lora"]
        assert main.main(list(map(str, command))) == 2
        assert "has no model.backbone.lora to merge" in capsys.readouterr().err

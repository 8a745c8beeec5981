"""Train, resume, test and mmseg's init_model: when each of them needs the pretrained file."""

import json
import shutil

import cv2
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from safetensors.torch import save_file

from vfm_ss.engine import launch
from vfm_ss.protocol.records import read_record

# A learning rate of 0: what is saved is what training began from.
STILL = {"optim_wrapper.optimizer.lr": 0.0, "model.backbone.pretrained": "weights.safetensors"}


@pytest.fixture
def weights(project, monkeypatch):
    """Enter the project, whose file `weights.safetensors` holds these pretrained weights."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    torch.manual_seed(1)
    state = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64).state_dict()
    save_file(state, "weights.safetensors")
    return state


def check(checkpoint, weights, step):
    saved = torch.load(checkpoint, weights_only=False)
    assert saved["meta"]["iter"] == step
    for name, value in weights.items():
        if not name.startswith("head."):
            assert torch.equal(saved["state_dict"][f"backbone.vit.{name}"], value), name


def score(work_dir):
    return json.loads(next(work_dir.glob("*/2*.json")).read_text())["mIoU"]


def test_of_a_file(project, weights):
    launch.train("tiny.py", STILL, work_dir="run")
    check("run/iter_4.pth", weights, 4)
    record = read_record(project / "run/record.json")
    assert record.weights["source"] == "weights.safetensors"

    # From here on the file is gone, as on another machine.
    (project / "weights.safetensors").unlink()
    launch.test("tiny.py", "run/iter_4.pth", STILL, work_dir="test")
    assert score(project / "test") == record.miou

    (project / "resumed").mkdir()
    shutil.copy("run/iter_2.pth", "resumed")
    launch.train("tiny.py", STILL, work_dir="resumed", resume="auto")
    check("resumed/iter_4.pth", weights, 4)
    again = read_record(project / "resumed/record.json")
    assert again.history == record.history
    assert again.weights == record.weights

    cfg = Config.fromfile("tiny.py")
    cfg.merge_from_dict(STILL)
    model = init_model(cfg, "run/iter_4.pth", device="cpu")
    assert torch.equal(model.backbone.vit.pos_embed, weights["pos_embed"])
    launch.test("tiny.py", "run/iter_4.pth", STILL, work_dir="out", out="maps")
    for path in (project / "maps").iterdir():
        image = project / "data/ade/images/validation" / path.with_suffix(".jpg").name
        classes = inference_model(model, str(image)).pred_sem_seg.data[0]
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert torch.equal(classes + 1, torch.from_numpy(stored).long())

    # A new run needs it, and so does one that begins with a part of a checkpoint.
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors do not exist"):
        launch.train("tiny.py", STILL, work_dir="new")
    part = torch.load("run/iter_4.pth", weights_only=False)["state_dict"]
    part = {name: value for name, value in part.items() if not name.startswith("backbone")}
    torch.save(part, "part.pth")
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors do not exist"):
        launch.train("tiny.py", {**STILL, "load_from": "part.pth"}, work_dir="new")
    with pytest.raises(ValueError, match="weights do not fit, such as backbone"):
        launch.test("tiny.py", "part.pth", STILL, work_dir="new")


def test_of_the_hub(project, weights, monkeypatch):
    asked = []

    def download(*args, **kwargs):
        asked.append(args)
        if len(asked) > 2:
            raise OSError("no network")
        return weights

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", download)
    options = {**STILL, "model.backbone.pretrained": True}
    options["train_cfg.max_iters"] = 2
    launch.train("tiny.py", options, work_dir="run")
    check("run/iter_2.pth", weights, 2)

    # mmengine's runner by itself, as mmseg's own tools use it.
    cfg = Config.fromfile("tiny.py")
    cfg.merge_from_dict({**options, "work_dir": "stock", "train_dataloader.batch_size": 16})
    Runner.from_cfg(cfg).train()
    check("stock/iter_2.pth", weights, 2)
    assert len(asked) == 2

    launch.test("tiny.py", "run/iter_2.pth", options, work_dir="test")
    launch.train("tiny.py", options, work_dir="run", resume="auto")
    cfg = Config.fromfile("tiny.py")
    cfg.merge_from_dict({**options, "work_dir": "stock_test", "load_from": "run/iter_2.pth"})
    Runner.from_cfg(cfg).test()
    scores = [score(project / name) for name in ("test", "stock_test")]
    assert scores == [read_record(project / "run/record.json").miou] * 2
    assert len(asked) == 2
    with pytest.raises(FileNotFoundError, match=r"--cfg-options model.backbone.pretrained=/path/"):
        launch.train("tiny.py", options, work_dir="new")

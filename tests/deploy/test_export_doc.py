"""The sliding windows of docs/export.md, run as they stand there, on CamVid."""

import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from vfm_ss.deploy.export import export
from vfm_ss.deploy.trained import load_trained

ROOT = Path(__file__).parents[2]
CAMVID = ROOT.parent / "shared" / "data" / "camvid.zip"
CONFIG = """
_base_ = "{root}/projects/camvid/configs/tiny_b16_linear_camvid.py"
model = dict(backbone=dict(img_size=(352, 352), depth=2))
test_dataloader = dict(dataset=dict(data_root="{data}"))
"""


@pytest.fixture
def images(tmp_path):
    """Eight images to fit a head on, and six to score, at the paths of the project's config."""
    if not CAMVID.is_file():
        pytest.skip(f"there is no {CAMVID}")
    with zipfile.ZipFile(CAMVID) as archive:
        for split, count in (("train", 8), ("val", 6)):
            names = [n for n in archive.namelist() if f"/{split}/" in n and n.endswith(".jpg")]
            for name in names[:: len(names) // count][:count]:
                for part in (name, name.replace("images", "annotations").replace("jpg", "png")):
                    archive.extract(part, tmp_path)
    return tmp_path / "CamVid"


@torch.no_grad()
def fit_head(model, images):
    """Give the linear head the least squares solution on random features: a model that knows much
    more than nothing, in a second."""
    head, features, targets = model.decode_head, [], []
    for path in sorted((images / "images" / "train").iterdir()):
        label = images / "annotations" / "train" / f"{path.stem}.png"
        image = np.asarray(Image.open(path).crop((64, 4, 416, 356)))[..., ::-1].copy()
        batch = model.data_preprocessor(dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))
        features.append(model.extract_feat(batch["inputs"])[-1][0].flatten(1).T)
        cells = np.asarray(Image.open(label).crop((64, 4, 416, 356)))[8::16, 8::16]
        targets.append(torch.from_numpy(cells.astype(np.int64)).flatten())
    x, y = torch.cat(features).double(), torch.cat(targets)
    x, y = x[y < 11], torch.eye(11, dtype=torch.float64)[y[y < 11]]
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    solution = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ y).float()
    head.conv_seg.weight.copy_(solution[:-1].T[..., None, None])
    head.conv_seg.bias.copy_(solution[-1])


def example(path):
    """Run the code of the document, in the folder of a graph."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) == {"numpy", "onnxruntime"}
    names: dict = {}
    exec(code.replace('"model.onnx"', repr(str(path))), names)
    return names


def test_sliding_windows_of_the_document(images, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "projects" / "camvid"), *sys.path])
    config, checkpoint = tmp_path / "config.py", tmp_path / "checkpoint.pth"
    config.write_text(CONFIG.format(root=ROOT, data=images))
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model).eval()
    fit_head(model, images)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)

    lines = list(export(config, checkpoint, [tmp_path / "model.onnx"], dynamic_batch=True))
    assert "comparing on images of CamVidDataset, 3 of 352x352" in lines[0]

    model, cfg, _ = load_trained(config, checkpoint)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    evaluator = Evaluator([dict(type="MeanIoUMetric")])
    evaluator.dataset_meta = dataset.metainfo
    names = example(tmp_path / "model.onnx")
    same, confusion = [], np.zeros((11, 11))
    for k in range(len(dataset)):
        sample = dataset[k]
        batch = dict(inputs=[sample["inputs"]], data_samples=[sample["data_samples"]])
        with torch.no_grad():
            ours = model.test_step(batch)
        evaluator.process(data_samples=ours, data_batch=batch)
        info = dataset.get_data_info(k)
        theirs = names["segment"](names["session"], np.asarray(Image.open(info["img_path"])))
        same.append((ours[0].pred_sem_seg.data[0].numpy() == theirs).mean())
        label = np.asarray(Image.open(info["seg_map_path"]))
        np.add.at(confusion, (label[label < 11], theirs[label < 11]), 1)
    score = evaluator.evaluate(len(dataset))["mIoU"]
    hits, either = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert score > 12  # of a model that knows nothing: below 5
    assert min(same) > 0.999
    assert 100 * np.mean(hits / either) == pytest.approx(score, abs=0.05)

"""Data files of a sweep: what is read off them, and the config that a cell on them becomes."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from vfm_ss.cli.sweep_files import answer, look_up, parsed
from vfm_ss.errors import UsageError
from vfm_ss.sweep.cells import config_text
from vfm_ss.sweep.factors import of_factors
from vfm_ss.sweep.plan import expand

FOLDER = """
data = dict(type="FolderDataset", images="{root}/images", labels="{root}/labels",
            classes={{0: "soil", 7: "weed", 9: "crop"}}, name="fields")
train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
"""
MMSEG = """
crop_size = (64, 96)
train_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
    dict(type="RandomCrop", crop_size=crop_size), dict(type="PackSegInputs"),
]
dataset = dict(type="BaseSegDataset", data_root="x", metainfo=dict(classes=("a", "b")),
               data_prefix=dict(img_path="i", seg_map_path="l"))
train_dataloader = dict(
    batch_size=4, num_workers=2, sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RepeatDataset", times=3, dataset=dict(**dataset, pipeline=train_pipeline)),
)
val_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False),
                      dataset=dict(**dataset, pipeline=train_pipeline[:2]))
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def facts(name, text):
    Path(name).write_text(text)
    found = answer({"data": [name], "vfms": [], "timm": []})
    return parsed(json.loads(json.dumps(found))).data[name]


def config(data, **given):
    (cell,) = of_factors(["mae"], dict(data=[data.file], **given), {data.file: data}).cells
    path = Path(f"{cell.name}.py")
    path.write_text(config_text(cell))
    return cell, Config.fromfile(path)


def test_a_minimal_file_gets_the_benchmark_s_loaders(tmp_path):
    data = facts("my.py", FOLDER.format(root=tmp_path))
    assert (data.name, data.train, data.eval) == ("fields", "fields", "fields")
    assert (data.crop_size, data.num_classes, data.steps) == ((512, 512), 3, 20_000)
    assert data.notes == (
        "states no crop_size, the default is 512x512",
        "states no steps, the default is 20000",
    )
    cell, cfg = config(data, decoders=["mask2former"], fractions=["1/16"])
    assert cell.name == "mae_b16_mask2former_fields_f16"
    assert cell.setting == "b16_mask2former_fields_f16"
    train = cfg.train_dataloader
    assert (train.batch_size, train.sampler.type) == (16, "PositionSampler")
    assert train.dataset.fraction == "1/16"
    assert train.dataset.classes == {0: "soil", 7: "weed", 9: "crop"}
    assert train.dataset.pipeline[0].type == "LoadRandomCrop"
    assert cfg.test_dataloader.dataset.pipeline[1].type == "ResizeToCover"
    assert cfg.val_evaluator.type == "MeanIoUMetric"
    assert cfg.model.decode_head.num_classes == 3
    assert cfg.model.backbone.img_size == (512, 512)
    assert cfg.train_cfg.max_iters == 20_000
    assert cfg.default_hooks.record.train_dataset == "fields"


def test_the_file_of_docs_own_data_md_is_one(tmp_path):
    text = Path(__file__).parents[2].joinpath("docs", "own_data.md").read_text()
    data = facts("fields.py", text.partition("```python\n")[2].partition("```")[0])
    assert (data.name, data.num_classes) == ("fields", 3)
    _, cfg = config(data)
    assert cfg.val_dataloader.dataset.split == "val"
    assert cfg.train_dataloader.dataset.pipeline[0].type == "LoadRandomCrop"


def test_a_base_config_of_mmseg_keeps_its_pipelines_and_score():
    data = facts("mine.py", MMSEG)
    assert (data.name, data.crop_size, data.num_classes) == ("mine", (64, 96), 2)
    assert data.notes == (
        "states no steps, the default is 20000",
        "left out: train_dataloader.batch_size=4, which is the benchmark's",
        "left out: train_dataloader.sampler={'type': 'InfiniteSampler', 'shuffle': True}, which is "
        "the benchmark's",
    )
    cell, cfg = config(data, steps=["3k"])
    assert cell.name == "mae_b16_linear_mine_3k"
    assert cfg.train_dataloader.batch_size == 16
    sampler = cfg.train_dataloader.sampler
    assert (sampler.type, "shuffle" in sampler) == ("PositionSampler", False)
    assert cfg.train_dataloader.num_workers == 2
    assert [t.type for t in cfg.train_dataloader.dataset.dataset.pipeline][2] == "RandomCrop"
    assert cfg.val_evaluator == dict(type="IoUMetric", iou_metrics=["mIoU"])
    assert cfg.model.backbone.img_size == (64, 96)
    # Both would be called after mmseg's base class.
    assert cfg.default_hooks.record.eval_dataset == "mine"


def test_two_data_sets_of_one_name_are_refused(tmp_path):
    files = {name: facts(name, FOLDER.format(root=tmp_path)) for name in ("a.py", "b.py")}
    product = of_factors(["mae"], dict(data=list(files)), files)
    with pytest.raises(ValueError, match=r"a\.py and b\.py would both be trained as mae_b16"):
        expand(tmp_path, product)


def test_further_evaluations_are_taken_over():
    data = facts("mine.py", MMSEG + "eval_data = ['night.py', 'acdc']")
    assert config(data)[1].eval_data == ["night.py", "acdc"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = 1", "data file a.py: it has no train_dataloader with a dataset of a type"),
        ("a.py", "x = ", "data file a.py: "),
        ("a.py", MMSEG + "train_dataloader['dataset']['fraction'] = 0.5", "give --fractions"),
        ("a.py", MMSEG + "num_classes = 3", "num_classes is 3, but the data set has 2 classes"),
        ("a.py", MMSEG + "crop_size = 1.5", "crop_size is 1.5|not iterable"),
        ("a.py", MMSEG + "steps = '10k'", "steps is '10k', expected a number of optimiser steps"),
        ("ade20k.py", MMSEG, "its data would be called 'ade20k', as the benchmark's own"),
        ("mine_f16.py", MMSEG, "the name 'mine_f16' cannot be part of a config's name"),
        ("a.py", MMSEG + "val_evaluator = dict(type=print)", "name classes by text"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(name, text, message):
    with pytest.raises(UsageError, match=message) as error:
        facts(name, text)
    assert str(error.value).isprintable()


def test_timm_is_asked_for_its_names():
    answer(
        {
            "data": [],
            "vfms": [],
            "timm": ["vit_tiny_patch16_224", "vit_base_patch16_dinov3.lvd1689m"],
        }
    )
    with pytest.raises(UsageError, match=r"no such model; near are .*dinov3\.lvd1689m"):
        answer({"data": [], "vfms": [], "timm": ["vit_base_patch16_dinov3.lvd"]})


def test_another_process_is_asked(tmp_path):
    for kind in ("images", "labels"):
        Path(kind).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(f"{kind}/a.png")
    Path("my.py").write_text(FOLDER.format(root=tmp_path))
    found = look_up(["my.py"], [], []).data["my.py"]
    assert (found.name, found.crop_size) == ("fields", (512, 512))
    assert found.notes == (
        "states no crop_size, the default is 512x512",
        "states no steps, the default is 20000",
    )
    with pytest.raises(UsageError, match=r"data file none\.py: the file does not exist"):
        answer({"data": ["none.py"], "vfms": [], "timm": []})


class TestDINOv3Probe:
    """The recipe's augmentation on data of one's own, unless the file has another."""

    @pytest.mark.parametrize("more", ["", "data.update(pipeline=PLAIN)\n"])
    def test_it_is_the_recipe_s(self, more, tmp_path):
        plain = '[dict(type="LoadRandomCrop"), dict(type="PackSegInputs")]'
        text = FOLDER.format(root=tmp_path).replace(
            "train_dataloader =", f"{more}train_dataloader ="
        )
        data = facts("my.py", text.replace("PLAIN", plain))
        assert not data.own_pipeline
        cell, cfg = config(data, decoders=["dinov3-probe"], fractions=["1/16"], steps=["800"])
        assert cell.name == "mae_b16_dinov3-probe_fields_f16_800steps"
        load, pack = cfg.train_dataloader.dataset.pipeline
        assert (load.scale_relative_to, load.max_class_share, load.pad_value) == (
            "cover", 0.75, "mean"
        )  # fmt: skip
        assert pack.type == "PackSegInputs"
        assert cfg.train_dataloader.dataset.fraction == "1/16"
        assert cfg.val_dataloader.dataset.pipeline[0].type == (
            "LoadRandomCrop" if more else "LoadImage"
        )
        assert (cfg.param_scheduler.warmup, cfg.train_cfg.max_iters) == (30, 800)
        assert cfg.model.decode_head.num_classes == 3

    def test_the_file_s_own_pipeline_is_kept_and_the_config_says_so(self):
        data = facts("their.py", MMSEG)
        assert data.own_pipeline
        cell, cfg = config(data, decoders=["dinov3-probe"])
        steps = cfg.train_dataloader.dataset.dataset.pipeline
        assert [step.type for step in steps][:3] == [
            "LoadImageFromFile", "LoadAnnotations", "RandomCrop"
        ]  # fmt: skip
        assert "not as DINOv3 does" in config_text(cell)

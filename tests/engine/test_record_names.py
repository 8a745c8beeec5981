"""What a record calls decoder and datasets: the keys of their classes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from vfm_ss.datasets import RawADE20KDataset, RawCityscapesDataset
from vfm_ss.engine.run_facts import dataset_name, describe_setting
from vfm_ss.models.decode_heads import LinearHead
from vfm_ss.protocol.settings import SETTINGS, config_name

LEAVES = Path(__file__).parents[2] / "configs" / "vfm"


def bare(cls):
    """Make an object without its constructor."""
    return cls.__new__(cls)


def loader(cls):
    return SimpleNamespace(dataset=bare(cls))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_leaves_are_recorded_as_their_setting(name):
    cfg, setting = Config.fromfile(LEAVES / f"{config_name('mae', name)}.py"), SETTINGS[name]
    model = SimpleNamespace(
        backbone=SimpleNamespace(key="mae", frozen=cfg.model.backbone.get("frozen", False)),
        decode_head=bare(MODELS.get(cfg.model.decode_head.type)),
    )
    runner = SimpleNamespace(
        train_dataloader=loader(DATASETS.get(cfg.train_dataloader.dataset.type)),
        val_dataloader=loader(DATASETS.get(cfg.val_dataloader.dataset.type)),
    )
    found = describe_setting(model, runner)
    assert found["decoder"] == setting.decoder
    assert found["train_dataset"] == setting.data.train
    assert found["eval_dataset"] == setting.data.eval


def test_a_projects_own_classes_go_by_their_names():
    class MyHead(LinearHead):
        pass

    class FieldsDataset:
        pass

    backbone = SimpleNamespace(frozen=True)
    runner = SimpleNamespace(
        train_dataloader=loader(FieldsDataset),
        val_dataloader=loader(type("MyADE", (RawADE20KDataset,), {})),
    )
    found = describe_setting(SimpleNamespace(backbone=backbone, decode_head=bare(MyHead)), runner)
    assert (found["vfm"], found["decoder"]) == ("simplenamespace", "myhead-probe")
    assert (found["train_dataset"], found["eval_dataset"]) == ("fields", "ade20k")


def test_wrapped_datasets_go_by_what_they_wrap():
    parts = [bare(RawCityscapesDataset), bare(RawADE20KDataset), bare(RawCityscapesDataset)]
    joined = SimpleNamespace(datasets=parts)
    assert dataset_name(SimpleNamespace(dataset=parts[1])) == "ade20k"
    assert dataset_name(SimpleNamespace(dataset=joined)) == "cityscapes+ade20k"
    # mmseg derives night and fog from Cityscapes, which they are not.
    assert dataset_name(bare(DATASETS.get("DarkZurichDataset"))) == "darkzurich"
    assert dataset_name(bare(DATASETS.get("CityscapesDataset"))) == "cityscapes"

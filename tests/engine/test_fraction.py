"""Training on a fraction: what is trained on, recorded and resumed, on a toy model."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from vfm_ss.datasets import fraction
from vfm_ss.engine import prepared_config
from vfm_ss.engine.train_loop import SAMPLES_NAME
from vfm_ss.protocol.records import read_record


@pytest.fixture(autouse=True)
def _toy_labels(monkeypatch):
    """All of the toy's 23 samples hold both classes."""
    monkeypatch.setattr(fraction, "class_presence", lambda datasets: np.ones((23, 2), bool))


def loader(**dataset):
    return dict(
        batch_size=16, num_workers=0, sampler=dict(type="PositionSampler"),
        dataset=dict(type="ToyDataset", **dataset), collate_fn=dict(type="pseudo_collate"),
    )  # fmt: skip


def weights(runner):
    return torch.cat([p.detach().ravel() for p in runner.model.parameters()])


def test_it_trains_on_the_same_samples_whatever_the_seed(toy, tmp_path):
    runner = toy("whole")
    runner.train()
    lists, hashes = set(), set()
    for seed in (0, 1):
        runner = toy(
            f"run{seed}", train_dataloader=loader(fraction="1/2"), randomness=dict(seed=seed)
        )
        runner.train()
        assert len(runner.train_dataloader.dataset) == 12
        record = read_record(tmp_path / f"run{seed}" / "record.json")
        assert record.data == {"train_samples": 12, "fraction": 0.5, "subset_seed": 0}
        lists.add((tmp_path / f"run{seed}" / SAMPLES_NAME).read_text())
        hashes.add(record.config_hash)
    assert len(lists) == len(hashes) == 1
    assert len(lists.pop().split()) == 12
    assert hashes != {read_record(tmp_path / "whole" / "record.json").config_hash}
    assert not (tmp_path / "whole" / SAMPLES_NAME).exists()


def test_a_lost_class_is_in_the_record(toy, tmp_path, monkeypatch):
    presence = np.ones((23, 3), bool)
    presence[:, 2] = np.arange(23) == 4
    monkeypatch.setattr(fraction, "class_presence", lambda datasets: presence)
    monkeypatch.setattr(fraction, "class_names", lambda dataset: ["a", "b", "c"])
    toy(train_dataloader=loader(fraction="1/4")).train()
    assert read_record(tmp_path / "run" / "record.json").remarks[0] == (
        "fraction 1/4 of the training set (subset seed 0): 6 of 23 samples, none of which holds "
        "classes that the whole set holds: 'c' (in 1)"
    )


def test_resume_is_exact_and_of_the_same_samples(toy, tmp_path):
    data = dict(train_dataloader=loader(fraction="1/2"))
    whole = toy("whole", **data)
    whole.train()
    toy("halted", **data).train()
    (tmp_path / "halted" / "iter_6.pth").unlink()
    same = toy("halted", resume="auto", train_dataloader=loader(fraction=0.5, subset_seed=0))
    same.train()
    assert torch.equal(weights(same), weights(whole))
    for other in (dict(fraction="1/4"), dict(), dict(fraction="1/2", subset_seed=1)):
        with pytest.raises(ValueError, match=r"dataset\.(fraction|subset_seed) was"):
            toy("halted", resume="auto", train_dataloader=loader(**other)).train()


@pytest.mark.parametrize(
    ("part", "loop", "message"),
    [
        ("val", "OptimStepTrainLoop", "val_dataloader.dataset.fraction: scores are of the whole"),
        ("train", "IterBasedTrainLoop", "goes with train_cfg.type='OptimStepTrainLoop', not with"),
    ],
)
def test_a_fraction_that_nobody_takes_is_refused(part, loop, message):
    cfg = Config({f"{part}_dataloader": loader(fraction="1/2"), "train_cfg": dict(type=loop)})
    with pytest.raises(ValueError, match=message):
        prepared_config.check_fraction(cfg)

import random

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from vfm_ss.datasets.seeding import SampleIndex
from vfm_ss.engine.randomness import seed_samples, seed_step


def draw(*args):
    seed_step(*args)
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_numbers_depend_on_seed_step_and_rank_alone():
    first = draw(0, 1, 2)
    torch.manual_seed(5)
    torch.rand(7)
    assert draw(0, 1, 2) == first


def test_no_two_steps_or_ranks_share_a_number():
    draws = [draw(s, k, r) for s in range(3) for k in (0, 1, 2, 40000) for r in range(3)]
    for source in zip(*draws, strict=True):
        assert len(set(source)) == len(draws)


class Jitter(BaseTransform):
    """As a stock transform, it draws from the global states."""

    def transform(self, results):
        return np.random.rand(), random.random(), torch.rand(1).item()


class Plain(BaseDataset):
    def load_data_list(self):
        return [dict(number=k) for k in range(5)]


@pytest.mark.parametrize("wrap", [lambda d: RepeatDataset(d, 2), lambda d: ConcatDataset([d, d])])
def test_stock_transforms_depend_on_the_sample_alone(wrap):
    dataset = wrap(Plain(pipeline=[Jitter()]))
    unseeded = dataset[SampleIndex(7, seed=1, position=30)]
    assert dataset[SampleIndex(7, seed=1, position=30)] != unseeded
    seed_samples(dataset)
    seed_samples(dataset)
    first = dataset[SampleIndex(7, seed=1, position=30)]
    assert first != dataset[SampleIndex(7, seed=1, position=40)]
    assert first != dataset[SampleIndex(7, seed=2, position=30)]
    assert first == dataset[SampleIndex(7, seed=1, position=30)]
    assert dataset[7] != dataset[7], "any other sampler"

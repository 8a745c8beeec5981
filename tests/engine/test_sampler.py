import copy
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from vfm_ss.datasets.seeding import SampleIndex, sample_rng
from vfm_ss.engine import sampler as module
from vfm_ss.engine.sampler import PositionSampler


def take(count, size=23, seed=3, rank=0, world=1, skip=0, monkeypatch=None, **kwargs):
    if monkeypatch is not None:
        monkeypatch.setattr(module, "get_dist_info", lambda: (rank, world))
    sampler = PositionSampler(range(size), seed=seed, **kwargs)
    sampler.skip(skip)
    return list(islice(sampler, count))


class TestOrder:
    def test_every_pass_is_another_permutation(self):
        indices = take(23 * 4)
        passes = [indices[k * 23 : (k + 1) * 23] for k in range(4)]
        assert all(sorted(one) == list(range(23)) for one in passes)
        assert len({tuple(one) for one in passes}) == 4

    def test_seeds_share_no_pass(self):
        passes = {
            (seed, k): tuple(take(23 * 3, seed=seed)[k * 23 : (k + 1) * 23])
            for seed in range(4)
            for k in range(3)
        }
        assert len(set(passes.values())) == len(passes)

    def test_positions_count_up(self):
        assert [index.position for index in take(100)] == list(range(100))
        assert {index.seed for index in take(5, seed=9)} == {9}

    def test_without_shuffling(self):
        assert take(50, shuffle=False) == [k % 23 for k in range(50)]

    @pytest.mark.parametrize("world", [2, 3, 16])
    def test_ranks_share_the_stream_of_one(self, world, monkeypatch):
        whole = take(96)
        ranks = [
            take(96 // world, rank=r, world=world, monkeypatch=monkeypatch) for r in range(world)
        ]
        merged = [index for step in zip(*ranks, strict=True) for index in step]
        assert merged == whole
        assert [index.position for index in merged] == list(range(96))

    @pytest.mark.parametrize("world", [1, 4])
    def test_skip_is_absolute_and_exact(self, world, monkeypatch):
        common = dict(rank=world - 1, world=world, monkeypatch=monkeypatch)
        whole = take(400, **common)
        for skip in (0, 1, 7, 23, 200, 399):
            rest = take(400 - skip, skip=skip, **common)
            assert rest == whole[skip:]
            assert [i.position for i in rest] == [i.position for i in whole[skip:]]

    def test_iterating_again_starts_at_the_same_place(self):
        sampler = PositionSampler(range(10), seed=0)
        sampler.skip(4)
        assert list(islice(sampler, 9)) == list(islice(sampler, 9))

    def test_no_seed_draws_one(self):
        assert take(23, seed=None) != take(23, seed=None)

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="no samples"):
            PositionSampler([])
        with pytest.raises(ValueError, match="cannot skip -1"):
            PositionSampler(range(3)).skip(-1)


class TestSampleIndex:
    @pytest.mark.parametrize("clone", [copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_survives_a_trip_to_a_worker(self, clone):
        index = clone(SampleIndex(5, seed=2, position=77))
        assert (index, index.seed, index.position) == (5, 2, 77)

    def test_generator_depends_on_seed_and_position_only(self):
        def draw(*args):
            return sample_rng(dict(sample_idx=SampleIndex(*args))).random()

        assert draw(1, 2, 3) == draw(9, 2, 3)
        assert len({draw(0, seed, position) for seed in range(5) for position in range(5)}) == 25


@DATASETS.register_module(force=True)
class Noise(BaseDataset):
    """Samples whose value is the first draw of their generator."""

    def load_data_list(self):
        return [dict(number=k) for k in range(23)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        return dict(number=info["number"], draw=sample_rng(info).random())


def batches(count, workers, skip=0, dataset=None, batch_size=4):
    cfg = dict(
        batch_size=batch_size,
        num_workers=workers,
        sampler=dict(type="PositionSampler"),
        dataset=dataset or dict(type="Noise"),
        collate_fn=dict(type="default_collate"),
    )
    loader = Runner.build_dataloader(cfg, seed=5)
    iterator = _InfiniteDataloaderIterator(loader)
    if skip and hasattr(iterator, "skip_iter"):
        iterator.skip_iter(skip)
    elif skip:  # the original mmengine leaves it to the train loop
        loader.sampler.skip(skip * batch_size)
        iterator = _InfiniteDataloaderIterator(loader)
    return [next(iterator) for _ in range(count)]


def same(a, b):
    return all(
        torch.equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in ("number", "draw")
    )


class TestWithMmengine:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_stream_is_the_same_for_any_number_of_workers(self, workers):
        assert same(batches(12, 0), batches(12, workers))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_mmengine_s_resume_continues_the_stream(self, workers):
        assert same(batches(12, 0)[7:], batches(5, workers, skip=7))

    def test_batch_size_does_not_matter(self):
        flat = [
            torch.cat([b["draw"] for b in batches(24 // size, 0, batch_size=size)])
            for size in (4, 8)
        ]
        assert torch.equal(*flat)

    def test_wrapped_datasets_keep_the_position(self):
        parts = [Noise(), Noise()]
        wrapped = [ConcatDataset(parts), RepeatDataset(Noise(), 2)]
        for dataset in wrapped:
            draws = [
                dataset[index]["draw"] for index in islice(PositionSampler(dataset, seed=5), 30)
            ]
            expected = [np.random.default_rng((5, position)).random() for position in range(30)]
            assert draws == expected


def test_far_resume_costs_nothing():
    sampler = PositionSampler(range(20210), seed=0)
    sampler.skip(10**12)
    index = next(iter(sampler))
    assert index.position == 10**12

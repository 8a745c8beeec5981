import random

import numpy as np
import torch

from vfm_ss.engine.randomness import seed_step


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

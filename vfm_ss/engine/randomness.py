"""The random numbers of a training step as a function of the run's seed, the step and the rank."""

import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch (the current GPU too), numpy and python for one optimiser step.

    Whatever drew random numbers before, such as a validation, a resume or a dataloader that was
    started anew, a step then draws the same ones: dropout, drop path, mmseg's samplers. So nothing
    has to be saved, and any checkpoint of any process can be resumed exactly.

    Args:
        seed: Seed of the run.
        step: Number of the optimiser step.
        rank: Number of the process, so that no two drop the same units.
    """
    words = np.random.SeedSequence([seed, step, rank]).generate_state(6)
    # `torch.manual_seed` would also record a stack trace for every GPU that is not in use.
    torch.default_generator.manual_seed(int(words[0]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(words[1]))
    np.random.seed(words[2:])
    random.seed(words[2:].tobytes())

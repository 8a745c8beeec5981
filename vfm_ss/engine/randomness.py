"""Random numbers of a step, or of a sample, as a function of the seed and its number."""

import random

import numpy as np
import torch

from vfm_ss.datasets.seeding import SampleIndex


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch (the current GPU too), numpy and python for one optimiser step.

    Whatever drew random numbers before (a validation, a resume, a restarted dataloader), a step
    then draws the same ones: dropout, drop path, mmseg's samplers. So no random state has to be
    saved, and any checkpoint of any process can be resumed exactly.

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


class SeedSample:
    """A transform that seeds numpy, torch and python by the seed and position of the sample."""

    def __call__(self, results: dict) -> dict:
        """Seed, if a PositionSampler drew this sample; return it unchanged."""
        index = results.get("sample_idx")
        if isinstance(index, SampleIndex):
            seed_step(index.seed, index.position)
        return results


def seed_samples(dataset) -> None:
    """Make the augmentation of every sample, mmseg's stock transforms too, depend on it alone.

    Args:
        dataset: An mmengine dataset or a wrapper of some; others are left as they are.
    """
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for part in inner:
        if part is not None:
            seed_samples(part)
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", None)
    if isinstance(transforms, list) and not any(isinstance(t, SeedSample) for t in transforms):
        transforms.insert(0, SeedSample())

"""Random numbers that depend on the seed and a sample's position in the run, on nothing else."""

import numpy as np


class SampleIndex(int):
    """A dataset index that knows which draw of the run it is.

    mmengine's datasets put the index they are asked for into the sample as `sample_idx`, so it
    reaches the transforms without any change to the dataset, through worker processes and through
    the index arithmetic of ConcatDataset and RepeatDataset.

    Attributes:
        seed: Seed of the run.
        position: Number of samples, over all ranks, that come before this one in the run.
    """

    def __new__(cls, index: int, seed: int = 0, position: int = 0) -> "SampleIndex":
        """Create an index; pickle calls this with the integer only and sets the rest itself."""
        self = super().__new__(cls, index)
        self.seed = seed
        self.position = position
        return self

    def __sub__(self, other: int) -> "SampleIndex":
        return SampleIndex(int(self) - other, self.seed, self.position)

    def __mod__(self, other: int) -> "SampleIndex":
        return SampleIndex(int(self) % other, self.seed, self.position)


def sample_rng(results: dict) -> np.random.Generator:
    """Return the generator of a sample's augmentation.

    Args:
        results: The sample; its `sample_idx` is a SampleIndex where a PositionSampler drew it.

    Returns:
        A generator seeded with (seed, position), or from numpy's global state (which mmengine seeds
        per worker) with any other sampler.
    """
    index = results.get("sample_idx")
    if isinstance(index, SampleIndex):
        return np.random.default_rng((index.seed, index.position))
    return np.random.default_rng(np.random.randint(2**31, size=4))

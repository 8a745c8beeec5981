"""The order of the training samples as a function of the seed and the position in the run."""

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from vfm_ss.datasets.seeding import SampleIndex


@DATA_SAMPLERS.register_module()
class PositionSampler(Sampler):
    """Infinite sampler that starts at any position at once and says the position of every sample.

    Position p of the run is entry p % n of a random permutation of the n samples that depends on
    the seed and p // n only. Rank r of w takes positions r, r + w, ..., as mmengine's
    InfiniteSampler, so a step of 16 images sees the same 16 for any number of ranks and workers.

    Args:
        dataset: The dataset, or anything with a length.
        shuffle: Whether to permute; False takes the dataset's order in every pass.
        seed: Seed of the run; None draws one and shares it between the ranks.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        if self.size == 0:
            raise ValueError("the training dataset has no samples: check its data_root")
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.start = 0

    def skip(self, num_samples: int) -> None:
        """Make the next iteration begin after `num_samples` samples of this rank.

        Counted from the start of the run. OneDL's mmengine calls this on resume; for the original
        one, call it before the dataloader's iterator is made.
        """
        if num_samples < 0:
            raise ValueError(f"cannot skip {num_samples} samples: the number must not be negative")
        self.start = num_samples

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield this rank's indices without end."""
        position = self.start * self.world_size + self.rank
        current = None
        while True:
            epoch, entry = divmod(position, self.size)
            if epoch != current:
                current, order = epoch, self._order(epoch)
            yield SampleIndex(order[entry], self.seed, position)
            position += self.world_size

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        # One stream per (seed, epoch): seed + epoch would give run 1 the second pass of run 0, and
        # torch's CPU generator ignores all but 32 bits of a seed.
        return np.random.default_rng((self.seed, epoch, self.size)).permutation(self.size).tolist()

    def __len__(self) -> int:
        """Return the number of samples in the dataset."""
        return self.size

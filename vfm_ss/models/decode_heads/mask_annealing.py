"""When EoMT's queries stop being confined to their masks (arXiv 2503.19108, section 3.3)."""

from collections.abc import Sequence
from itertools import pairwise

#: Exponent of the decay.
POWER = 0.9


def equal_phases(num_blocks: int, max_steps: int) -> list[tuple[int, int]]:
    """Return the steps between which each block's masking is annealed, the first block's first.

    Training has ``num_blocks + 2`` equal phases: masking everywhere, one phase for each block, and
    none. This is LightlyTrain's rule (0.18), which follows EoMT's own settings of ViT-L on ADE20K.

    Args:
        num_blocks: Blocks with queries.
        max_steps: Optimiser steps of the training.
    """
    bounds = [round(i * max_steps / (num_blocks + 2)) for i in range(num_blocks + 2)]
    return list(pairwise(bounds[1:]))


def mask_probability(step: int, start: int, end: int) -> float:
    """Return the probability that a query is confined to its mask in a block.

    It is 1 until ``start`` and 0 from ``end`` on, and falls in between as ``(1 - t) ** 0.9``.

    Args:
        step: Optimiser steps made.
        start: Step at which it begins to fall.
        end: First step without masking.
    """
    if step < start:
        return 1.0
    if step >= end:
        return 0.0
    return (1 - (step - start) / (end - start)) ** POWER


def check_phases(
    phases: Sequence[Sequence[int]], num_blocks: int, max_steps: int
) -> list[tuple[int, int]]:
    """Return stated phases.

    Raises:
        ValueError: If there is not one (start, end) for each block, or masking would go on at the
            end of training, so that prediction would differ from it.
    """
    pairs = [tuple(phase) for phase in phases]
    fit = all(len(pair) == 2 and 0 <= pair[0] <= pair[1] <= max_steps for pair in pairs)
    if len(pairs) != num_blocks or not fit:
        raise ValueError(
            f"mask_annealing={[list(phase) for phase in phases]} must be one (start, end) for each "
            f"of the {num_blocks} open blocks, in optimiser steps up to the last, {max_steps}"
        )
    return pairs

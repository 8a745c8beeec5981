"""Linear resizing of one axis as a matrix."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize_linear(signal: Tensor, size: int, align_corners: bool = False) -> Tensor:
    """Resize the last axis of (N, cells) linearly to (N, size), as torch does."""
    return F.interpolate(signal[None], size=size, mode="linear", align_corners=align_corners)[0]


@functools.lru_cache(maxsize=64)
def resize_matrix(
    cells: int, size: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the (size, cells) matrix of a linear resize, whose rows sum to 1.

    Bilinear interpolation is one such matrix for each axis. The result is shared: do not change it.

    Args:
        cells: Samples of the input.
        size: Samples of the output.
        align_corners: As in `torch.nn.functional.interpolate`.
        dtype: Of the result.
        device: Of the result. It is kept there, so that a training step copies nothing.
    """
    # Also a test's or a validation's first call makes a tensor that training can use.
    with torch.inference_mode(False):
        eye = torch.eye(cells, dtype=torch.float64)
        return resize_linear(eye, size, align_corners).T.contiguous().to(device, dtype)


@functools.lru_cache(maxsize=64)
def supports(
    cells: int, size: int, align_corners: bool, tile: int
) -> tuple[tuple[slice, slice], ...]:
    """Cut the output of a linear resize into tiles and say which inputs each of them needs.

    Args:
        cells: Samples of the input.
        size: Samples of the output.
        align_corners: As in `torch.nn.functional.interpolate`.
        tile: Samples of a tile; the last one may be smaller.

    Returns:
        For each tile, its slice of the output and the slice of the input with non-zero weights.
    """
    matrix = resize_matrix(cells, size, align_corners, torch.float64, torch.device("cpu"))
    support = matrix.numpy() != 0
    tiles = []
    for start in range(0, size, tile):
        rows = slice(start, min(start + tile, size))
        tiles.append((rows, span(support[rows])))
    return tuple(tiles)


def span(support: np.ndarray) -> slice:
    """Return the range of columns from the first to the last that has a True in some row.

    Args:
        support: (rows, columns) booleans, at least one of them True.
    """
    used = np.flatnonzero(support.any(0))
    return slice(int(used[0]), int(used[-1]) + 1)

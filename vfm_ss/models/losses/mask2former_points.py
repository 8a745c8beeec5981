"""Points at which Mask2Former compares masks (arXiv 2112.01527, section 3.3).

A point is ``(x, y)`` in ``grid_sample``'s coordinates: -1 and 1 are the outer edges of the image,
whatever the resolution. Masks are read at points by bilinear interpolation, with 0 outside.

Shape letters:
    M: masks; S: points; h, w: mask logits; H, W: label map.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Samples (masks x points) worked on at once. On an accelerator enough to fill it (an image with 15
# targets is one piece) in bounded memory; on a CPU fewer take the same time and less memory.
_CPU_SAMPLES = 2**18
_DEVICE_SAMPLES = 2**25


def chunks(rows: int, samples_per_row: int, device: torch.device) -> Iterator[slice]:
    """Yield slices that cut ``rows`` so that temporaries suit the device."""
    samples = _CPU_SAMPLES if device.type == "cpu" else _DEVICE_SAMPLES
    size = max(1, samples // max(1, samples_per_row))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def uniform_points(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw uniform points, ``(*shape, 2)``, with the device and type of ``like``."""
    return like.new_empty((*shape, 2)).uniform_(-1, 1, generator=generator)


def sample_masks(masks: Tensor, points: Tensor) -> Tensor:
    """Read each mask at its own points.

    Args:
        masks: ``(M, h, w)``.
        points: ``(M, S, 2)``.

    Returns:
        ``(M, S)``.
    """
    return F.grid_sample(masks[:, None], points[:, None], align_corners=False)[:, 0, 0]


class SharedPoints:
    """Reads many masks at the same points, and adds values at the points to the masks' cells.

    Each point is a weighted sum of four cells of the grid. On a CPU, reading them as rows of a
    table makes matching and losses about twice as fast as with ``grid_sample``.

    Args:
        points: ``(S, 2)``.
        height: Rows of the masks.
        width: Columns of the masks.
    """

    def __init__(self, points: Tensor, height: int, width: int):
        self.size = height * width
        self._cells, self._weights = _corners(points, height, width)

    def sample(self, masks: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield some points at a time: which, and the masks ``(M, h, w)`` there, ``(S, M)``."""
        table = masks.flatten(1).T.contiguous()
        for some in chunks(len(self._cells), len(masks), masks.device):
            cells, weights = self._cells[some], self._weights[some]
            yield some, F.embedding_bag(cells, table, per_sample_weights=weights, mode="sum")

    def spread(self, values: Tensor) -> Tensor:
        """Add values at the points, ``(T, S)``, to the cells, ``(T, h w)``: sampling's adjoint."""
        values = (values[..., None] * self._weights).flatten(1)
        cells = self._cells.flatten().expand_as(values)
        return values.new_zeros(len(values), self.size).scatter_add_(1, cells, values)


def _corners(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cells around each point and their bilinear weights, ``(S, 4)`` each."""
    x = (points[:, 0] + 1) * (width / 2) - 0.5
    y = (points[:, 1] + 1) * (height / 2) - 0.5
    left, top = x.floor(), y.floor()
    cells, weights = [], []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        cells.append(torch.where(inside, row * width + column, 0))
        weights.append(torch.where(inside, weight, 0))
    return torch.stack(cells, dim=-1).long(), torch.stack(weights, dim=-1)


@torch.no_grad()
def uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw points for each mask, most of them where its prediction is least certain.

    Of ``oversample_ratio * num_points`` uniform candidates, those with the smallest absolute logit
    make up a share ``importance_sample_ratio`` of the points; the rest is uniform.

    Args:
        mask_logits: ``(M, h, w)``.
        num_points: Number of points S per mask.
        oversample_ratio: Candidates per point.
        importance_sample_ratio: Share of the points that comes from the candidates, in [0, 1].
        generator: Source of randomness; the default one if None.

    Returns:
        ``(M, S, 2)``.
    """
    num_candidates = int(num_points * oversample_ratio)
    num_uncertain = int(num_points * importance_sample_ratio)
    num_uniform = num_points - num_uncertain
    points = mask_logits.new_empty(len(mask_logits), num_points, 2)
    for rows in chunks(len(mask_logits), num_candidates, mask_logits.device):
        masks = mask_logits[rows]
        candidates = uniform_points((len(masks), num_candidates), masks, generator)
        certainty = sample_masks(masks, candidates).abs_()
        chosen = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
        chosen = chosen[..., None].expand(-1, -1, 2)
        points[rows, :num_uncertain] = candidates.gather(1, chosen)
        points[rows, num_uncertain:] = uniform_points((len(masks), num_uniform), masks, generator)
    return points


class LabelSampler:
    """Reads the binary masks of a label map at points without making the masks.

    Bilinear sampling of a binary mask needs four pixels, and their labels serve every class.

    Args:
        labels: ``(H, W)`` integer label map.
    """

    def __init__(self, labels: Tensor):
        self.height, self.width = labels.shape
        # -1 is no class: outside the image there is none.
        self._labels = F.pad(labels.long(), (1, 1, 1, 1), value=-1).flatten()

    def sample(self, points: Tensor, classes: Tensor) -> Tensor:
        """Read the mask of one class per row.

        Args:
            points: ``(M, S, 2)``, or ``(1, S, 2)`` for all.
            classes: ``(M,)`` class of each row.

        Returns:
            ``(M, S)`` in [0, 1], of the type of ``points``.
        """
        # Pixel coordinates in the padded map; never negative, so truncation rounds down.
        x = (points[..., 0] + 1) * (self.width / 2) + 0.5
        y = (points[..., 1] + 1) * (self.height / 2) + 0.5
        column, row = x.long(), y.long()
        x, y = x - column, y - row
        stride = self.width + 2
        cell = row * stride + column
        corners = [
            (self._labels[cell + step] == classes[:, None]).to(points.dtype)
            for step in (0, 1, stride, stride + 1)
        ]
        top, bottom = torch.lerp(*corners[:2], x), torch.lerp(*corners[2:], x)
        return torch.lerp(top, bottom, y)

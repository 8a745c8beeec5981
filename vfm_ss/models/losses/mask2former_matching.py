"""Hungarian matching of predicted to target masks, for all predictions and images at once.

Shape letters:
    P: predictions (initial queries and every layer); Q: queries; K: classes; T: targets of an
    image; S: points; N: matched pairs; h, w: mask logits.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .mask2former_points import SharedPoints

# What a non-finite cost (an overflow under fp16) becomes: matched last, and scipy accepts it.
_MAX_COST = 1e10


@torch.no_grad()
def matching_costs(
    class_logits: Tensor,
    mask_logits: Tensor,
    classes: Tensor,
    target_points: Tensor,
    points: Tensor,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
) -> Tensor:
    """Compute what it costs to match each query with each target, for all predictions of an image.

    Args:
        class_logits: ``(P, Q, K + 1)``.
        mask_logits: ``(P, Q, h, w)``.
        classes: ``(T,)`` class of each target.
        target_points: ``(T, S)`` target masks at the points, in [0, 1].
        points: ``(S, 2)``.
        class_weight: Weight of minus the probability of the target's class.
        mask_weight: Weight of the mean binary cross entropy over the points.
        dice_weight: Weight of the dice loss over the points.

    Returns:
        ``(P, Q, T)``.
    """
    masks = mask_logits.flatten(0, 1)
    shared_points = SharedPoints(points, *masks.shape[1:])
    softplus_sum, prob_sum = masks.new_zeros(2, len(masks))
    prob_overlap = masks.new_zeros(len(classes), len(masks))
    for some, logits in shared_points.sample(masks):
        probs = logits.sigmoid()
        prob_sum += probs.sum(dim=0)
        prob_overlap += target_points[:, some] @ probs
        softplus_sum += F.softplus(logits).sum(dim=0)
    # The cross entropy of logit x with target t is softplus(x) - x t. Its first part serves all
    # targets; the second is linear in x, and so a product on the masks' coarse grid.
    logit_overlap = shared_points.spread(target_points) @ masks.flatten(1).T
    cross_entropy = (softplus_sum - logit_overlap) / len(points)
    dice = 1 - (2 * prob_overlap + 1) / (prob_sum + target_points.sum(dim=1, keepdim=True) + 1)
    mask_costs = (mask_weight * cross_entropy + dice_weight * dice).T.unflatten(
        0, mask_logits.shape[:2]
    )
    return mask_costs - class_weight * class_logits.softmax(dim=-1)[..., classes]


def assign(costs: Sequence[Tensor], classes: Sequence[Sequence[int]]) -> Tensor:
    """Find the cheapest one-to-one matching of every prediction and image.

    The costs cross to the CPU, and the pairs back, in one transfer each.

    Args:
        costs: For each image, ``(P, Q, T)``.
        classes: For each image, the classes of its T targets.

    Returns:
        ``(4, N)`` integers on the device of the costs: image, prediction, query and class of each
        pair, ordered by image, then prediction, then query; an image has P min(Q, T) of them.
    """
    device = costs[0].device
    flat = torch.cat([cost.flatten() for cost in costs])
    flat = torch.nan_to_num(flat, nan=_MAX_COST, posinf=_MAX_COST, neginf=_MAX_COST).cpu().numpy()
    ends = np.cumsum([cost.numel() for cost in costs])
    pairs = []
    for image, values in enumerate(np.split(flat, ends[:-1])):
        for prediction, matrix in enumerate(values.reshape(costs[image].shape)):
            query, target = linear_sum_assignment(matrix)
            matched = np.asarray(classes[image], dtype=np.int64)[target]
            place = np.full_like(query, image), np.full_like(query, prediction)
            pairs.append(np.stack([*place, query, matched]))
    return torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)

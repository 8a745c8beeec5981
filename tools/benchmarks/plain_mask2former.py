"""Mask2Former's losses written plainly: one prediction and one image at a time.

The reference that the package's batched losses are tested and timed against. It follows the usual
implementations: a full-resolution mask per target, ``grid_sample`` for each, one cost matrix and
one transfer to the CPU per prediction and image.

Shape letters:
    P: predictions; B: images; Q: queries; K: classes; T: targets of an image; S: points.
"""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment


def plain_losses(
    class_logits, mask_logits, label_maps, loss, ignore_index=255, match_points=None, points=None
):
    """Compute the losses of every prediction, normalised over the batch.

    Args:
        class_logits: ``(P, B, Q, K + 1)``.
        mask_logits: ``(P, B, Q, h, w)``.
        label_maps: ``(B, H, W)``.
        loss: A ``Mask2FormerLoss``, for its settings.
        ignore_index: Label without a class.
        match_points: For each image, ``(S, 2)`` points to match at. Default: random ones.
        points: For each image, ``(P, pairs, S, 2)`` points to compare at. Default: random ones.

    Returns:
        ``loss_cls``, ``loss_mask`` and ``loss_dice``, ``(P,)`` each, before their weights.
    """
    masks, classes = plain_targets(label_maps, ignore_index, mask_logits.dtype)
    num_masks = max(sum(len(image) for image in classes), 1)
    losses = {"loss_cls": [], "loss_mask": [], "loss_dice": []}
    for p in range(len(mask_logits)):
        target_classes = class_logits.new_full(class_logits.shape[1:3], -1, dtype=torch.long)
        mask_loss, dice_loss = mask_logits.sum() * 0, mask_logits.sum() * 0
        for b in range(len(label_maps)):
            at = _random(mask_logits, loss.num_points) if match_points is None else match_points[b]
            cost = plain_costs(
                class_logits[p, b], mask_logits[p, b], masks[b], classes[b], at, loss
            )
            query, target = map(torch.as_tensor, linear_sum_assignment(cost.cpu()))
            query, target = query.to(cost.device), target.to(cost.device)
            target_classes[b, query] = classes[b][target]
            if not len(query):
                continue
            logits, inside = mask_logits[p, b][query], masks[b][target]
            at = _uncertain_points(logits, loss) if points is None else points[b][p]
            logits, inside = _sample(logits, at), _sample(inside, at)
            entropy = F.binary_cross_entropy_with_logits(logits, inside, reduction="none")
            mask_loss = mask_loss + entropy.mean(1).sum()
            dice_loss = dice_loss + _dice(logits.sigmoid(), inside).sum()
        losses["loss_cls"].append(plain_class_loss(class_logits[p], target_classes, loss))
        losses["loss_mask"].append(mask_loss / num_masks)
        losses["loss_dice"].append(dice_loss / num_masks)
    return {name: torch.stack(values) for name, values in losses.items()}


def plain_targets(label_maps, ignore_index, dtype):
    """Make the masks, ``(T, H, W)``, and classes, ``(T,)``, of each image."""
    masks, classes = [], []
    for labels in label_maps:
        present = labels.unique()
        present = present[present != ignore_index]
        masks.append((labels == present[:, None, None]).to(dtype))
        classes.append(present)
    return masks, classes


@torch.no_grad()
def plain_costs(class_logits, mask_logits, masks, classes, points, loss):
    """Compute the ``(Q, T)`` cost matrix of one prediction and image."""
    logits = _sample(mask_logits, points.expand(len(mask_logits), -1, -1))
    inside = _sample(masks, points.expand(len(masks), -1, -1))
    foreground = F.binary_cross_entropy_with_logits(
        logits, torch.ones_like(logits), reduction="none"
    )
    background = F.binary_cross_entropy_with_logits(
        logits, torch.zeros_like(logits), reduction="none"
    )
    entropy = (foreground @ inside.T + background @ (1 - inside).T) / logits.shape[1]
    probs = logits.sigmoid()
    overlap = 2 * probs @ inside.T
    dice = 1 - (overlap + 1) / (probs.sum(1)[:, None] + inside.sum(1) + 1)
    probability = class_logits.softmax(-1)[:, classes]
    return loss.mask_weight * entropy + loss.dice_weight * dice - loss.class_weight * probability


def plain_class_loss(class_logits, target_classes, loss):
    """Compute the class loss of one prediction; -1 is no-object."""
    weight = class_logits.new_ones(class_logits.shape[-1])
    weight[-1] = loss.no_object_weight
    target = target_classes.masked_fill(target_classes < 0, class_logits.shape[-1] - 1)
    return F.cross_entropy(class_logits.flatten(0, 1), target.flatten(), weight)


@torch.no_grad()
def _uncertain_points(mask_logits, loss):
    num_uncertain = int(loss.num_points * loss.importance_sample_ratio)
    shape = len(mask_logits), int(loss.num_points * loss.oversample_ratio)
    candidates = _random(mask_logits, *shape)
    certainty = _sample(mask_logits, candidates).abs()
    index = certainty.topk(num_uncertain, largest=False).indices
    chosen = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    uniform = _random(mask_logits, len(mask_logits), loss.num_points - num_uncertain)
    return torch.cat([chosen, uniform], 1)


def _random(like, *shape):
    return torch.rand(*shape, 2, dtype=like.dtype, device=like.device) * 2 - 1


def _sample(masks, points):
    return F.grid_sample(masks[:, None], points[:, None], align_corners=False)[:, 0, 0]


def _dice(probs, inside):
    return 1 - (2 * (probs * inside).sum(1) + 1) / (probs.sum(1) + inside.sum(1) + 1)

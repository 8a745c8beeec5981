"""The target masks of a batch, and the weight of each image in its losses.

Shape letters:
    B: images; K: classes; Q: queries; H, W: label maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from torch import Tensor


@dataclass(frozen=True)
class ImageTargets:
    """The targets of one image.

    Attributes:
        labels: ``(H, W)`` integer label map.
        classes: The classes in it: each is one target mask.
        generator: Source of the points at which its masks are compared; None is the default one.
    """

    labels: Tensor
    classes: Sequence[int]
    generator: torch.Generator | None = None


def to_device(values: Sequence[int], device: torch.device) -> Tensor:
    """Copy integers to a device without waiting for it, as ``torch.tensor`` would."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)


def find_classes(
    label_maps: Sequence[Tensor],
    num_classes: int,
    ignore_index: int | None,
    names: Sequence[str],
) -> list[list[int]]:
    """List the classes of each label map: each is one target mask.

    Args:
        label_maps: B integer tensors of any shape.
        num_classes: Number of classes K.
        ignore_index: Label without a class, or None.
        names: What to call each image in an error.

    Returns:
        For each image the classes that it contains, ascending.

    Raises:
        ValueError: If a label is neither a class nor ``ignore_index``.
    """
    # Labels beyond the allowed range are clamped to one value on each side of it.
    low = min(0, ignore_index or 0) - 1
    high = max(num_classes - 1, ignore_index or 0) + 1
    found = []
    for labels, name in zip(label_maps, names, strict=True):
        slots = labels.long().clamp(low, high).sub_(low).flatten()
        values = (torch.bincount(slots).nonzero().flatten() + low).tolist()
        classes = [value for value in values if value != ignore_index]
        if any(not 0 <= value < num_classes for value in classes):
            raise ValueError(_unknown_label(labels, num_classes, ignore_index, name))
        found.append(classes)
    return found


def _unknown_label(labels: Tensor, num_classes: int, ignore_index: int | None, name: str) -> str:
    wrong = [
        value
        for value in labels.unique().tolist()
        if not 0 <= value < num_classes and value != ignore_index
    ]
    return (
        f"label {wrong[0]} in {name}, but num_classes={num_classes} allows 0 to {num_classes - 1} "
        f"and ignore_index={ignore_index}: make decode_head.num_classes the dataset's number of "
        f"classes, or check the labels (reduce_zero_label)"
    )


def batch_totals(
    classes: Sequence[Sequence[int]], num_queries: int, device: torch.device
) -> Tensor:
    """Count images, targets and matched queries over all GPUs.

    Args:
        classes: For each image of this GPU, its classes.
        num_queries: Number of queries Q.
        device: Device of the result, one that the process group can use.

    Returns:
        ``(3,)`` integers: images, targets, matched queries (at most Q of an image).
    """
    targets = [len(image) for image in classes]
    matched = [min(count, num_queries) for count in targets]
    totals = to_device([len(targets), sum(targets), sum(matched)], device)
    all_reduce(totals)
    return totals


def image_weights(
    classes: Sequence[Sequence[int]],
    totals: Tensor,
    num_queries: int,
    no_object_weight: float,
    normalize: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return what one target mask, and one weighted query, of each image adds to the losses.

    Summed over the effective batch, ``'batch'`` makes the mask losses a mean over its target masks
    and the class loss a weighted mean over its queries, as Mask2Former does with the batch of a
    step. ``'image'`` makes both means over each image first and then over the images: the released
    code of arXiv 2404.12172, which accumulates 16 batches of one image.

    Args:
        classes: For each of the B images at hand, its classes.
        totals: :func:`batch_totals` of the effective batch.
        num_queries: Number of queries Q.
        no_object_weight: Weight of a query without target in the class loss.
        normalize: ``'batch'`` or ``'image'``.
        dtype: Type of the result.

    Returns:
        Weights of the mask losses and of the class loss, ``(B,)`` each.
    """
    targets = to_device([len(image) for image in classes], totals.device).to(dtype)
    images, all_targets, all_matched = totals.to(dtype)

    def class_weight_sum(matched: Tensor, queries: Tensor | int) -> Tensor:
        return matched + no_object_weight * (queries - matched)

    if normalize == "image":
        masks = 1 / (images * targets.clamp(min=1))
        matched = targets.clamp(max=num_queries)
        return masks, 1 / (images * class_weight_sum(matched, num_queries))
    masks = 1 / all_targets.clamp(min=1)
    queries = 1 / class_weight_sum(all_matched, images * num_queries)
    return masks.expand(len(classes)), queries.expand(len(classes))

"""Mask2Former's losses with deep supervision (arXiv 2112.01527, sections 3.3 and 4).

Shape letters:
    P: predictions (initial queries and every layer); B: images; Q: queries; K: classes;
    T: targets of an image; S: points; N: matched pairs; h, w: mask logits; H, W: label maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .mask2former_matching import assign, matching_costs
from .mask2former_points import (
    LabelSampler,
    chunks,
    sample_masks,
    uncertain_points,
    uniform_points,
)
from .mask2former_targets import ImageTargets, to_device


@MODELS.register_module()
class Mask2FormerLoss(nn.Module):
    """Class, mask and dice loss of every prediction, after Hungarian matching.

    The ten predictions are matched and penalised together; the numbers are those of doing it one
    prediction and one image at a time.

    Args:
        class_weight: Weight of the class loss (cross entropy), in matching and loss.
        mask_weight: Weight of the mask loss (binary cross entropy), in matching and loss.
        dice_weight: Weight of the dice loss, in matching and loss.
        no_object_weight: Weight of a query without target within the class loss.
        num_points: Number of points S at which masks are compared.
        oversample_ratio: Candidates per point for :func:`uncertain_points`.
        importance_sample_ratio: Share of the points taken from them.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ):
        super().__init__()
        if not 0 <= importance_sample_ratio <= 1 or oversample_ratio < importance_sample_ratio:
            raise ValueError(
                f"importance_sample_ratio={importance_sample_ratio} must be in [0, 1] and at most "
                f"oversample_ratio={oversample_ratio}: points are chosen among the candidates"
            )
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.no_object_weight = no_object_weight
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio

    def forward(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        targets: Sequence[ImageTargets],
        mask_image_weights: Tensor,
        class_image_weights: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the losses of every prediction, before their weights.

        Args:
            class_logits: ``(P, B, Q, K + 1)``, no-object last.
            mask_logits: ``(P, B, Q, h, w)``.
            targets: The targets of each of the B images.
            mask_image_weights: ``(B,)`` what one target mask of each image adds to the mask losses.
            class_image_weights: ``(B,)`` what one weighted query adds to the class loss.

        Returns:
            ``loss_cls``, ``loss_mask`` and ``loss_dice``, ``(P,)`` each.
        """
        # Sums over 12,544 points do not fit half precision.
        with torch.autocast(mask_logits.device.type, enabled=False):
            dtype = torch.promote_types(mask_logits.dtype, torch.float32)
            class_logits, mask_logits = class_logits.to(dtype), mask_logits.to(dtype)
            samplers = [LabelSampler(image.labels) for image in targets]
            pairs = self._match(class_logits, mask_logits, targets, samplers)
            class_loss = self._class_loss(class_logits, pairs, class_image_weights)
            mask_loss, dice_loss = self._mask_losses(
                mask_logits, targets, samplers, pairs, mask_image_weights
            )
        return {"loss_cls": class_loss, "loss_mask": mask_loss, "loss_dice": dice_loss}

    def weighted_sum(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weight the losses and sum them over the predictions: a scalar each."""
        weights = {
            "loss_cls": self.class_weight,
            "loss_mask": self.mask_weight,
            "loss_dice": self.dice_weight,
        }
        return {name: weights[name] * loss.sum() for name, loss in losses.items()}

    @torch.no_grad()
    def _match(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        targets: Sequence[ImageTargets],
        samplers: Sequence[LabelSampler],
    ) -> Tensor:
        """Match queries with targets; the pairs are those of :func:`assign`."""
        costs = []
        for image, (target, sampler) in enumerate(zip(targets, samplers, strict=True)):
            # The same points serve all predictions of an image. The authors' code draws new ones
            # for each prediction, from the same distribution.
            points = uniform_points((self.num_points,), mask_logits, target.generator)
            classes = to_device(target.classes, points.device)
            costs.append(
                matching_costs(
                    class_logits[:, image],
                    mask_logits[:, image],
                    classes,
                    sampler.sample(points[None], classes),
                    points,
                    self.class_weight,
                    self.mask_weight,
                    self.dice_weight,
                )
            )
        return assign(costs, [target.classes for target in targets])

    def _class_loss(self, class_logits: Tensor, pairs: Tensor, image_weights: Tensor) -> Tensor:
        image, prediction, query, matched_class = pairs
        no_object = class_logits.shape[-1] - 1
        target = pairs.new_full(class_logits.shape[:-1], no_object)
        target[prediction, image, query] = matched_class
        weight = class_logits.new_ones(no_object + 1)
        weight[no_object] = self.no_object_weight
        loss = F.cross_entropy(
            class_logits.flatten(0, 2), target.flatten(), weight, reduction="none"
        )
        return loss.view(target.shape).sum(dim=-1) @ image_weights

    def _mask_losses(
        self,
        mask_logits: Tensor,
        targets: Sequence[ImageTargets],
        samplers: Sequence[LabelSampler],
        pairs: Tensor,
        image_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        num_predictions, num_images, num_queries = mask_logits.shape[:3]
        image, prediction, query, matched_class = pairs
        row = (prediction * num_images + image) * num_queries + query
        masks = mask_logits.flatten(0, 2).index_select(0, row)

        # Known without asking the device: every prediction of an image has the same number.
        sizes = [num_predictions * min(len(target.classes), num_queries) for target in targets]
        points, inside = [], []
        for target, sampler, image_masks, image_classes in zip(
            targets, samplers, masks.detach().split(sizes), matched_class.split(sizes), strict=True
        ):
            points.append(self._draw_points(image_masks, target.generator))
            inside.append(_sample_targets(sampler, points[-1], image_classes))

        mask_loss, dice_loss = _point_losses(
            sample_masks(masks, torch.cat(points)), torch.cat(inside)
        )
        weights = image_weights[image]
        zeros = mask_logits.new_zeros(num_predictions)
        return (
            zeros.index_add(0, prediction, weights * mask_loss),
            zeros.index_add(0, prediction, weights * dice_loss),
        )

    def _draw_points(self, masks: Tensor, generator: torch.Generator | None) -> Tensor:
        return uncertain_points(
            masks, self.num_points, self.oversample_ratio, self.importance_sample_ratio, generator
        )


def _sample_targets(sampler: LabelSampler, points: Tensor, classes: Tensor) -> Tensor:
    """Read the target of each pair at its points, a few pairs at a time: ``(N, S)``."""
    inside = points.new_empty(points.shape[:-1])
    for rows in chunks(*inside.shape, points.device):
        inside[rows] = sampler.sample(points[rows], classes[rows])
    return inside


def _point_losses(logits: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return binary cross entropy and dice loss of each pair, ``(N,)``, from its points."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(dim=1)
    probs = logits.sigmoid()
    overlap = 2 * (probs * inside).sum(dim=1) + 1
    dice = 1 - overlap / (probs.sum(dim=1) + inside.sum(dim=1) + 1)
    return cross_entropy, dice

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .tiled_cross_entropy import nonzero, tiled_cross_entropy


@MODELS.register_module()
class PerImageCrossEntropyLoss(nn.Module):
    """Cross entropy averaged over the valid pixels of each image, then over the images.

    Averaging over the pixels of a whole batch would weigh an image by its share of valid pixels,
    and so depend on which images share a micro-batch. The authors train with batches of one image
    and accumulate sixteen, which is this loss; here it is the same for any micro-batch.

    Logits of one channel (mmseg's ``out_channels=1``) are those of class 1 against class 0, so that
    the loss is the binary cross entropy of their sigmoid.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Name in the log; mmseg adds what starts with ``loss`` to the total.
        tiled: Compute :meth:`upsampled` tile by tile, without the logits of every pixel in memory;
            False upsamples them all first. The numbers are the same.
        class_weight: Weight of the pixels of each class, 0 or more, two of them for one channel.
            The mean over an image is divided by the weights of its own pixels, as
            ``F.cross_entropy(weight=...)`` of this image alone does.
        mean_over: ``'valid'`` pixels of each image, or ``'all'``, also those that do not count: the
            mean over all pixels of a batch then, as of mmseg's ``CrossEntropyLoss`` by default.

    Raises:
        ValueError: If a weight of a class is no such number, or none is above 0; if ``mean_over``
            is neither, or ``'all'`` with class weights.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ce",
        tiled: bool = True,
        class_weight: Sequence[float] | None = None,
        mean_over: str = "valid",
    ):
        super().__init__()
        if mean_over not in ("valid", "all") or (mean_over == "all" and class_weight is not None):
            raise ValueError(
                f"loss_decode.mean_over={mean_over!r} must be 'valid', or 'all' and no class_weight"
            )
        self.mean_over = mean_over
        self.tiled = tiled
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self.class_weight = None if class_weight is None else _checked(class_weight)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        **kwargs,
    ) -> Tensor:
        """Compute the loss.

        Args:
            cls_score: (B, K, H, W) logits of K classes.
            label: (B, H, W) class indices; ``ignore_index`` marks pixels that do not count.
            weight: (B, H, W) weight of each pixel, as mmseg's pixel samplers give it.
            ignore_index: The label that does not count.
            **kwargs: Accepted for mmseg's decode heads, unused.

        Returns:
            A scalar. An image without a valid pixel contributes 0.

        Raises:
            ValueError: If there are not as many weights as classes.
        """
        cls_score = _two_classes(cls_score)
        classes = self._class_weight(cls_score)
        loss = F.cross_entropy(
            cls_score, label, classes, reduction="none", ignore_index=ignore_index
        )
        if weight is not None:
            loss = loss * weight
        valid = label != ignore_index
        if self.mean_over == "all":
            total = label[0].numel()
        elif classes is None:
            total = valid.sum(dim=(1, 2)).clamp(min=1)
        else:
            weights = classes.to(torch.promote_types(classes.dtype, torch.float32))
            total = nonzero((weights[label.where(valid, 0).long()] * valid).sum(dim=(1, 2)))
        return self.loss_weight * (loss.sum(dim=(1, 2)) / total).mean()

    def upsampled(
        self, cls_score: Tensor, label: Tensor, ignore_index: int = 255, align_corners: bool = False
    ) -> Tensor:
        """Compute the loss of logits after bilinear upsampling to the size of the labels.

        Args:
            cls_score: (B, K, h, w) logits of K classes.
            label: (B, H, W) class indices; ``ignore_index`` marks pixels that do not count.
            ignore_index: The label that does not count.
            align_corners: As in ``torch.nn.functional.interpolate``.

        Returns:
            A scalar, as from :meth:`forward`.
        """
        if self.tiled:
            cls_score = _two_classes(cls_score)
            classes = self._class_weight(cls_score)
            everything = self.mean_over == "all"
            losses = tiled_cross_entropy(
                cls_score, label, ignore_index, align_corners, classes, everything
            )
            return self.loss_weight * losses.mean()
        size = label.shape[1:]
        cls_score = F.interpolate(cls_score, size, mode="bilinear", align_corners=align_corners)
        return self(cls_score, label, ignore_index=ignore_index)

    def _class_weight(self, cls_score: Tensor) -> Tensor | None:
        if self.class_weight is None:
            return None
        if len(self.class_weight) != cls_score.shape[1]:
            raise ValueError(
                f"loss_decode.class_weight has {len(self.class_weight)} weights for "
                f"{cls_score.shape[1]} classes; give one for each class"
            )
        return cls_score.new_tensor(self.class_weight)


def _two_classes(cls_score: Tensor) -> Tensor:
    """Put a logit of 0 for class 0 before a single one: softmax is then the sigmoid of that."""
    return F.pad(cls_score, (0, 0, 0, 0, 1, 0)) if cls_score.shape[1] == 1 else cls_score


def _checked(class_weight: Sequence[float]) -> list[float]:
    numbers = not isinstance(class_weight, str) and all(
        isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
        for value in class_weight
    )
    if not numbers or not any(class_weight):
        raise ValueError(
            f"loss_decode.class_weight={class_weight!r} must be a list of numbers of 0 or more, "
            "one for each class and not all 0"
        )
    return list(class_weight)

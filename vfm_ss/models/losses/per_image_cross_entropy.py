import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .tiled_cross_entropy import tiled_cross_entropy


@MODELS.register_module()
class PerImageCrossEntropyLoss(nn.Module):
    """Cross entropy averaged over the valid pixels of each image, then over the images.

    Averaging over the pixels of a whole batch would weigh an image by its share of valid pixels,
    and so depend on which images share a micro-batch. The authors train with batches of one image
    and accumulate sixteen, which is this loss; here it is the same for any micro-batch.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Name in the log; mmseg adds what starts with ``loss`` to the total.
        tiled: Compute :meth:`upsampled` tile by tile, without the logits of every pixel in memory;
            False upsamples them all first. The numbers are the same.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_ce", tiled: bool = True):
        super().__init__()
        self.tiled = tiled
        self.loss_weight = loss_weight
        self.loss_name = loss_name

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
        """
        loss = F.cross_entropy(cls_score, label, reduction="none", ignore_index=ignore_index)
        if weight is not None:
            loss = loss * weight
        valid = (label != ignore_index).sum(dim=(1, 2)).clamp(min=1)
        return self.loss_weight * (loss.sum(dim=(1, 2)) / valid).mean()

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
            losses = tiled_cross_entropy(cls_score, label, ignore_index, align_corners)
            return self.loss_weight * losses.mean()
        size = label.shape[1:]
        cls_score = F.interpolate(cls_score, size, mode="bilinear", align_corners=align_corners)
        return self(cls_score, label, ignore_index=ignore_index)

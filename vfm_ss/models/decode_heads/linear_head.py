from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from vfm_ss.compat.mmseg_models import OpenDecodeHead

from ..losses import PerImageCrossEntropyLoss


@MODELS.register_module()
class LinearHead(OpenDecodeHead):
    """One linear layer on every feature vector: the paper's default decoder.

    No norm, no activation, no dropout, and PyTorch's own initialisation of a linear layer, as the
    authors train it. Logits are upsampled bilinearly to the label's size for the loss and to the
    image's for prediction.

    Args:
        in_channels: Channels of the feature map chosen by ``in_index``.
        num_classes: Number of classes.
        loss_decode: mmseg loss config, by default the per-image cross entropy.
        **kwargs: See mmseg's ``BaseDecodeHead`` (``in_index``, ``ignore_index``, ...).
    """

    key = "linear"  # in records and config names

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        loss_decode: dict | list[dict] | None = None,
        **kwargs,
    ):
        kwargs = {"dropout_ratio": 0, "init_cfg": None, "channels": in_channels, **kwargs}
        super().__init__(
            in_channels,
            num_classes=num_classes,
            loss_decode=loss_decode or {"type": "PerImageCrossEntropyLoss"},
            **kwargs,
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Classify every feature vector: maps of (B, C, h, w) to logits of (B, K, h, w)."""
        return self.cls_seg(self.chosen_features(inputs))

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses on logits upsampled to the size of the labels.

        The per-image cross entropy upsamples tile by tile; any other loss gets all the logits.

        Unlike mmseg's, without the training accuracy: a top-1 over all classes of every pixel
        that nothing reads.

        Args:
            seg_logits: (B, K, h, w).
            batch_data_samples: B samples with labels of (1, H, W).
        """
        label = self.stacked_labels(batch_data_samples)
        losses: dict[str, Tensor] = {}
        terms = self.loss_decode if hasattr(self.loss_decode, "__iter__") else [self.loss_decode]
        logits = weight = None
        for term in terms:
            if self.sampler is None and type(term) is PerImageCrossEntropyLoss:
                value = term.upsampled(
                    seg_logits, label[:, 0], self.ignore_index, bool(self.align_corners)
                )
            else:
                if logits is None:
                    logits, weight = self._upsample(seg_logits, label)
                value = term(logits, label[:, 0], weight=weight, ignore_index=self.ignore_index)
            losses[term.loss_name] = losses.get(term.loss_name, 0) + value
        return losses

    def _upsample(self, seg_logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = resize(
            seg_logits, size=label.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        return logits, None if self.sampler is None else self.sampler.sample(logits, label)

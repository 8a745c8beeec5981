"""Single-scale Mask2Former as an mmseg decode head.

Shape letters:
    B: images; C: input channels; K: classes; Q: queries; P: predictions (initial queries and every
    layer); h, w: feature grid.
"""

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import Tensor

from .mask2former_decoder import SingleScaleMask2FormerDecoder
from .mask_classification_head import MaskClassificationHead


@MODELS.register_module()
class SingleScaleMask2FormerHead(MaskClassificationHead):
    """Mask2Former for a plain ViT (arXiv 2404.12172, section 3), behind any mmseg backbone.

    Args:
        in_channels: Channels C of the feature map.
        num_classes: Number of classes K, at least 2.
        channels: Channels of the decoder.
        num_queries: Number of queries Q.
        num_layers: Number of decoder layers.
        num_heads: Number of attention heads.
        feedforward_channels: Hidden channels of the feed-forward networks.
        **kwargs: See :class:`MaskClassificationHead` (``loss_decode``, ``normalize``, ...).

    Raises:
        ValueError: If an argument is out of range.
    """

    key = "mask2former"  # in records and config names

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        num_queries: int = 100,
        num_layers: int = 9,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        **kwargs,
    ):
        if channels % num_heads or channels % 4:
            raise ValueError(
                f"channels={channels} must be a multiple of 4 and of num_heads={num_heads}"
            )
        super().__init__(in_channels, num_classes, num_queries, channels, **kwargs)
        self.decoder = SingleScaleMask2FormerDecoder(
            in_channels,
            num_classes,
            channels,
            num_queries,
            num_layers,
            num_heads,
            feedforward_channels,
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict from the initial queries and after every layer.

        Args:
            inputs: Feature maps of the backbone; the one at ``in_index`` is ``(B, C, h, w)``.

        Returns:
            Class logits ``(P, B, Q, K + 1)``, no-object last, and mask logits ``(P, B, Q, h, w)``.

        Raises:
            ValueError: If the feature map is missing or has another number of channels.
        """
        features = self.chosen_input(inputs)
        if features.shape[1] != self.in_channels:
            raise ValueError(
                f"feature map {self.in_index} has {features.shape[1]} channels, but "
                f"in_channels={self.in_channels}: set decode_head.in_channels={features.shape[1]}"
            )
        return self.decoder(features)

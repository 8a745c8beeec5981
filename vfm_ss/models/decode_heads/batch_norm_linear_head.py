from mmseg.registry import MODELS
from torch import Tensor, nn

from .linear_head import LinearHead


@MODELS.register_module()
class BatchNormLinearHead(LinearHead):
    """Dropout of whole channels, batch norm, one linear layer: the probe of DINOv3's evaluation.

    The batch norm is over all images of an optimiser step, those of other processes included
    (``nn.SyncBatchNorm``); evaluation uses its running statistics. The linear layer begins with
    weights of N(0, 0.01) and biases of 0. In training each channel of an image is dropped before
    the norm, as in the published head (mmseg's own order is norm, then dropout).

    Args:
        in_channels: Channels of the feature map chosen by ``in_index``.
        num_classes: Number of classes.
        loss_decode: mmseg loss config, by default the cross entropy over all pixels, where those
            that are ignored count as 0.
        dropout_ratio: Probability of a channel to be dropped.
        **kwargs: See ``LinearHead``.
    """

    key = "bn-linear"  # in records; with a frozen encoder it is the decoder `dinov3-probe`
    #: The train loop has to show it a process's share of a step at once, not in micro-batches.
    whole_batch = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        loss_decode: dict | list[dict] | None = None,
        dropout_ratio: float = 0.1,
        **kwargs,
    ):
        super().__init__(
            in_channels,
            num_classes,
            loss_decode or {"type": "PerImageCrossEntropyLoss", "mean_over": "all"},
            dropout_ratio=dropout_ratio,
            **{
                "init_cfg": {"type": "Normal", "std": 0.01, "override": {"name": "conv_seg"}},
                **kwargs,
            },
        )
        self.norm = nn.SyncBatchNorm(self.channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Normalise and classify: maps of (B, C, h, w) to logits of (B, K, h, w)."""
        features = self.chosen_features(inputs)
        if self.dropout is not None:
            features = self.dropout(features)
        return self.conv_seg(self.norm(features))

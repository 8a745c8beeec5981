"""What mmseg's models keep private.

Checked with mmsegmentation 1.2.2 and onedl-mmsegmentation 1.4.2.
"""

from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor


class OpenEncoderDecoder(EncoderDecoder):
    """mmseg's segmentor, with a public name for the step that ours adds to."""

    def build_decode_head(self, decode_head: dict) -> None:
        """Build the decode head, when the backbone is there, from its config."""
        super()._init_decode_head(decode_head)

    def _init_decode_head(self, decode_head: dict) -> None:
        self.build_decode_head(decode_head)


class OpenDecodeHead(BaseDecodeHead):
    """mmseg's decode head, whose helpers a head of ours can use."""

    def chosen_features(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Take the features of ``in_index``, as ``input_transform`` says."""
        return self._transform_inputs(inputs)

    def stacked_labels(self, batch_data_samples: list) -> Tensor:
        """Stack B labels of (1, H, W) to (B, 1, H, W)."""
        return self._stack_batch_gt(batch_data_samples)


class OpenDataPreProcessor(SegDataPreProcessor):
    """mmseg's data preprocessor, whose switches are read and set from outside."""

    def copy_without_waiting(self) -> None:
        """Let ``cast_data`` copy pinned memory to the device in the background."""
        self._non_blocking = True

    @property
    def swaps_channels(self) -> bool:
        """Whether it turns BGR into RGB or back."""
        # The first name is mmengine's and OneDL's, the second one that of mmseg 1.2.
        return getattr(self, "_channel_conversion", False) or getattr(
            self, "channel_conversion", False
        )

    @property
    def normalises(self) -> bool:
        """Whether mean and standard deviation are given."""
        return self._enable_normalize

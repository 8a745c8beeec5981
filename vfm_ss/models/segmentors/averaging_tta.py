"""Test-time augmentation: the class with the highest mean probability over augmented images."""

from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS

from .sliding_window import SlidingWindowEncoderDecoder


@MODELS.register_module()
class AveragingTTAModel(BaseTTAModel):
    """Average the probabilities of a segmentor over augmentations (``vfm-ss test --tta``).

    The rule is that of mmseg's ``SegTTAModel``, with two differences: one augmentation after the
    other is added up, so memory does not grow with their number, and images of a batch may differ
    in size. Heads that give scores of classes (Mask2Former, EoMT) count by their shares of the sum.

    Args:
        module: Config of the segmentor, a ``VFMEncoderDecoder`` or ``SlidingWindowEncoderDecoder``.
        **kwargs: See mmengine's ``BaseTTAModel``.

    Attributes:
        augmentations: Number of augmentations of the last batch; None before.

    Raises:
        ValueError: If it is another segmentor.
    """

    def __init__(self, module: dict, **kwargs) -> None:
        super().__init__(module=module, **kwargs)
        if not isinstance(self.module, SlidingWindowEncoderDecoder):
            raise ValueError(
                f"AveragingTTAModel goes with VFMEncoderDecoder, not {type(self.module).__name__}; "
                "use tta_model=dict(type='SegTTAModel')"
            )
        self.module.test_cfg["probabilities"] = "float32"
        self.augmentations: int | None = None

    def test_step(self, data: dict) -> list:
        """Predict a batch.

        Args:
            data: ``inputs`` and ``data_samples``: for each augmentation the list of the batch.

        Returns:
            The samples of the first augmentation, with the merged ``pred_sem_seg``.
        """
        self.augmentations = len(data["inputs"])
        merged, sums = [], []
        for k in range(self.augmentations):
            samples = self.module.test_step({name: values[k] for name, values in data.items()})
            shares = [sample.pop("probabilities").data for sample in samples]
            if k == 0:
                merged, sums = samples, shares
            else:
                for total, share in zip(sums, shares, strict=True):
                    total += share
        threshold = getattr(self.module.decode_head, "threshold", None)
        for sample, total in zip(merged, sums, strict=True):
            mean = total / self.augmentations
            binary = self.module.out_channels == 1
            classes = (mean[1] > threshold).long() if binary else mean.argmax(0)
            sample.pred_sem_seg = PixelData(data=classes[None])
        return merged

    def merge_preds(self, data_samples_list: list) -> list:
        """Refuse: `test_step` merges while it predicts."""
        raise NotImplementedError

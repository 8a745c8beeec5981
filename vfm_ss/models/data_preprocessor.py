"""Batches of test images that differ in size."""

import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS


@MODELS.register_module()
class PaddingSegDataPreProcessor(SegDataPreProcessor):
    """mmseg's data preprocessor, which also takes test images of several sizes as one batch.

    They are padded at the bottom and right to the largest height and width; `img_padding_size` of
    each sample says by how much, and the segmentor cuts it off again.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise and stack a batch of the dataloader."""
        inputs, samples = data["inputs"], data.get("data_samples")
        sizes = {tuple(image.shape[-2:]) for image in inputs}
        if not training and len(sizes) > 1 and samples is not None:
            height, width = (max(side) for side in zip(*sizes, strict=True))
            padded = []
            for image, sample in zip(inputs, samples, strict=True):
                padding = (0, width - image.shape[-1], 0, height - image.shape[-2])
                padded.append(F.pad(image, padding))
                sample.set_metainfo({"img_padding_size": padding})
            data = {**data, "inputs": padded}
        return super().forward(data, training)

"""Batches of uint8 images, normalised on the device."""

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from vfm_ss.compat.mmseg_models import OpenDataPreProcessor


@MODELS.register_module()
class PaddingSegDataPreProcessor(OpenDataPreProcessor):
    """mmseg's data preprocessor, with a fast path for training and any sizes in testing.

    Training images that need no padding are copied to the device as they come (uint8, without
    waiting where the dataloader pins memory), stacked, and normalised in one go; numbers and
    metainfo are mmseg's.

    Test images of several sizes are padded at the bottom and right to the largest height and width;
    `img_padding_size` of each sample says by how much, and the segmentor crops it again.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.copy_without_waiting()

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise and stack a batch of the dataloader."""
        inputs, samples = data["inputs"], data.get("data_samples")
        sizes = {tuple(image.shape[-2:]) for image in inputs}
        if training and samples is not None and self._fits(inputs, sizes):
            return self._stacked(data)
        if not training and len(sizes) > 1 and samples is not None:
            height, width = (max(side) for side in zip(*sizes, strict=True))
            padded = []
            for image, sample in zip(inputs, samples, strict=True):
                padding = (0, width - image.shape[-1], 0, height - image.shape[-2])
                padded.append(F.pad(image, padding))
                sample.set_metainfo({"img_padding_size": padding})
            data = {**data, "inputs": padded}
        return super().forward(data, training)

    def cast_data(self, data):
        """Copy a batch to the device without waiting for it.

        The dataloader pins the images, but does not look into mmseg's samples; a copy of a label
        that is not pinned would wait for the device.
        """
        if isinstance(data, dict) and self.device.type == "cuda":
            for sample in data.get("data_samples") or []:
                label = sample.get("gt_sem_seg")
                if label is not None and label.data.device.type == "cpu":
                    label.data = label.data.pin_memory()
        return super().cast_data(data)

    def _fits(self, inputs: list[Tensor], sizes: set[tuple[int, int]]) -> bool:
        return (
            self.size is not None
            and sizes == {tuple(self.size)}
            and all(image.shape[0] == 3 for image in inputs)
            and self.normalises
            and self.batch_augments is None
        )

    def _stacked(self, data: dict) -> dict:
        data = self.cast_data(data)
        images, samples = torch.stack(list(data["inputs"])), data["data_samples"]
        if self.swaps_channels:
            images = images.flip(1)  # an index list would be copied to the device, and waited for
        images = images.float().sub_(self.mean).div_(self.std)
        for sample in samples:
            labels = [sample.get(name) for name in ("gt_sem_seg", "gt_edge_map", "gt_depth_map")]
            shapes = [label.shape for label in labels if label is not None]
            sample.set_metainfo(
                {
                    "img_shape": images.shape[-2:],
                    "pad_shape": shapes[-1] if shapes else None,
                    "padding_size": (0, 0, 0, 0),
                }
            )
        return {"inputs": images, "data_samples": samples}

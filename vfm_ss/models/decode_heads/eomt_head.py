"""EoMT as an mmseg decode head behind a backbone with ``open_blocks``.

Shape letters:
    B: images; K: classes; Q: queries; L: blocks with queries; P: predictions.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..backbones.open_blocks import OpenBlocks
from .eomt_decoder import EoMTDecoder
from .mask_annealing import check_phases, equal_phases, mask_probability
from .mask_classification_head import MaskClassificationHead

# Beside an image's seed, so that the masked queries are not drawn as its points are.
_MASKED = 1


@MODELS.register_module()
class EoMTHead(MaskClassificationHead):
    """Encoder-only mask transformer (arXiv 2503.19108): queries pass the ViT's own last blocks.

    In training, classes and masks are predicted before each of these blocks, too, and a query
    sees in a block only the patches inside its mask; block after block, this is annealed to no
    masking at all, which is how it predicts. It depends on the number of the optimiser step, which
    ``OptimStepTrainLoop`` tells, and is drawn for each image: neither a resumed run nor the
    micro-batch changes it.

    Args:
        in_channels: Embedding width of the ViT.
        num_classes: Number of classes K, at least 2.
        num_queries: Number of queries Q.
        patch_size: Patch size of the ViT in pixels. The grid of patches is doubled until a mask has
            a cell for at most 4 x 4 pixels, once at least.
        mask_annealing: ``'auto'`` for equal phases over the training, a (start, end) in optimiser
            steps for each block, or None to train without masking.
        **kwargs: See :class:`MaskClassificationHead` (``loss_decode``, ``normalize``, ...).

    Raises:
        ValueError: If an argument is out of range.
    """

    key = "eomt"  # in records and config names

    #: Whether the backbone has to leave its last blocks to this head.
    takes_open_blocks = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_queries: int = 100,
        patch_size: int = 16,
        mask_annealing: str | Sequence[Sequence[int]] | None = "auto",
        **kwargs,
    ):
        if isinstance(mask_annealing, str) and mask_annealing != "auto":
            raise ValueError(
                "mask_annealing must be 'auto', a (start, end) for each block, or None, got "
                f"{mask_annealing!r}"
            )
        super().__init__(in_channels, num_classes, num_queries, in_channels, **kwargs)
        self.mask_annealing = mask_annealing
        num_upscales = max(1, math.ceil(math.log2(patch_size)) - 2)
        self.decoder = EoMTDecoder(in_channels, num_classes, num_queries, num_upscales)
        self._max_steps: int | None = None

    def begin_training(self, max_steps: int) -> None:
        """Take note of how many optimiser steps the training has."""
        self._max_steps = max_steps

    def forward(self, inputs: Sequence[OpenBlocks]) -> tuple[Tensor, Tensor]:
        """Predict as after training: without masking, and after the last block only.

        Args:
            inputs: Outputs of the backbone; the one at ``in_index`` is an ``OpenBlocks``.

        Returns:
            Class logits ``(1, B, Q, K + 1)``, no-object last, and mask logits ``(1, B, Q, h, w)``.

        Raises:
            ValueError: If the backbone gives feature maps, or of another width.
        """
        return self.decoder(self._open_blocks(inputs))

    def loss(
        self,
        inputs: Sequence[OpenBlocks],
        batch_data_samples: Sequence[SegDataSample],
        train_cfg: dict | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of every prediction; see ``MaskClassificationHead.loss_by_feat``.

        Args:
            inputs: Outputs of the backbone; the one at ``in_index`` is an ``OpenBlocks``.
            batch_data_samples: Samples with ``gt_sem_seg`` of ``(1, H, W)``.
            train_cfg: Not used.

        Raises:
            ValueError: If the optimiser step is not known.
        """
        blocks = self._open_blocks(inputs)
        masked = self._masked_queries(batch_data_samples, len(blocks), blocks.tokens.device)
        predictions = self.decoder(blocks, masked, every_block=True)
        return self.loss_by_feat(predictions, batch_data_samples)

    def mask_probabilities(self, step: int, num_blocks: int) -> list[float]:
        """Return the probability of masking in each block with queries.

        Args:
            step: Optimiser steps made.
            num_blocks: Blocks with queries.

        Raises:
            ValueError: If ``mask_annealing`` does not fit, or the length of training is not known.
        """
        if self.mask_annealing is None:
            return [0.0] * num_blocks
        if self._max_steps is None:
            raise ValueError(
                "EoMTHead anneals its masks over the training, but this train loop does not tell "
                "how long that is; use train_cfg.type='OptimStepTrainLoop', or "
                "decode_head.mask_annealing=None"
            )
        if self.mask_annealing == "auto":
            phases = equal_phases(num_blocks, self._max_steps)
        else:
            phases = check_phases(self.mask_annealing, num_blocks, self._max_steps)
        return [mask_probability(step, start, end) for start, end in phases]

    def _masked_queries(
        self, data_samples: Sequence[SegDataSample], num_blocks: int, device: torch.device
    ) -> Tensor | None:
        """Draw ``(L, B, Q)``: which queries are confined to their masks; None if none is."""
        # Without plans, before the first step (micro_batch='auto' measures memory): as in that.
        plans = self.plans_of(data_samples)
        step = 0 if plans is None else plans[0]["step"]
        probabilities = np.array(self.mask_probabilities(step, num_blocks))
        if not probabilities.any():
            return None
        draws = np.zeros((num_blocks, len(data_samples), self.num_queries))
        for image, plan in enumerate(plans or ()):
            source = np.random.default_rng([plan["seed"], _MASKED])
            draws[:, image] = source.random((num_blocks, self.num_queries))
        masked = torch.from_numpy(draws < probabilities[:, None, None])
        return masked.to(device, non_blocking=True)

    def _open_blocks(self, inputs: Sequence[OpenBlocks]) -> OpenBlocks:
        blocks = self.chosen_input(inputs)
        if not isinstance(blocks, OpenBlocks):
            raise ValueError(
                "EoMTHead runs the last blocks of the ViT itself, but the backbone gives feature "
                "maps; set model.backbone.open_blocks='auto'"
            )
        if blocks.tokens.shape[-1] != self.in_channels:
            raise ValueError(
                f"the backbone's tokens have {blocks.tokens.shape[-1]} channels, but in_channels="
                f"{self.in_channels}: set decode_head.in_channels={blocks.tokens.shape[-1]}"
            )
        return blocks

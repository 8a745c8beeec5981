"""The parts of EoMT, the encoder-only mask transformer, that are not the encoder's.

Kerssies et al., "Your ViT is Secretly an Image Segmentation Model" (arXiv 2503.19108), section 3.

Shape letters:
    B: images; C: embedding width; h, w: grid of patches; N = h * w: patch tokens; n: prefix tokens;
    Q: queries; K: classes; L: blocks with queries; P = L + 1: predictions; U: upscaling.
"""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..backbones.open_blocks import OpenBlocks


class Upscale(nn.Sequential):
    """Double the resolution of (B, C, h, w): transposed convolution, GELU, depthwise one, norm.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int):
        super().__init__(
            nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            LayerNorm2d(channels),
        )


class EoMTDecoder(nn.Module):
    """Queries that pass the last blocks of a ViT, and what predicts from them.

    Args:
        channels: Embedding width C of the ViT.
        num_classes: Number of classes K, without no-object.
        num_queries: Number of queries Q.
        num_upscales: How often the resolution of the patches is doubled for the masks.
    """

    def __init__(self, channels: int, num_classes: int, num_queries: int, num_upscales: int):
        super().__init__()
        self.queries = nn.Embedding(num_queries, channels)
        self.upscale = nn.Sequential(*(Upscale(channels) for _ in range(num_upscales)))
        self.class_layer = nn.Linear(channels, num_classes + 1)
        self.mask_mlp = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )

    def forward(
        self, blocks: OpenBlocks, masked: Tensor | None = None, every_block: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Predict after the last block and, if asked for, before each.

        Args:
            blocks: The tokens before the last L blocks, and these.
            masked: ``(L, B, Q)`` boolean, True where a query may look in a block only at the
                patches inside the mask that it predicts before it. None is never.
            every_block: Whether to predict before each block, too.

        Returns:
            Class logits ``(P, B, Q, K + 1)``, no-object last, and mask logits
            ``(P, B, Q, U * h, U * w)``; P is 1 without ``every_block``.
        """
        queries = self.queries.weight.to(blocks.tokens.dtype)
        x = torch.cat([queries.expand(blocks.tokens.shape[0], -1, -1), blocks.tokens], 1)
        predictions = []
        for index in range(len(blocks)):
            visible = None
            if every_block or masked is not None:
                predictions.append(self._predict(blocks, x))
            if masked is not None:
                visible = _inside(predictions[-1][1], blocks.grid_size)
                visible = visible | ~masked[index][..., None]
            x = blocks.run(index, x, visible)
        predictions.append(self._predict(blocks, x))
        kept = predictions if every_block else predictions[-1:]
        class_logits, mask_logits = (torch.stack(logits) for logits in zip(*kept, strict=True))
        return class_logits, mask_logits

    def _predict(self, blocks: OpenBlocks, x: Tensor) -> tuple[Tensor, Tensor]:
        x = blocks.norm(x)
        queries = x[:, : self.queries.num_embeddings]
        patches = x[:, self.queries.num_embeddings + blocks.num_prefix_tokens :]
        maps = self.upscale(patches.transpose(1, 2).unflatten(2, blocks.grid_size))
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_mlp(queries), maps)
        return self.class_layer(queries), masks


def _inside(mask_logits: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Return (B, Q, N): whether the mask, resized to the grid, holds each patch."""
    logits = F.interpolate(mask_logits.detach(), grid_size, mode="bilinear")
    return logits.flatten(2) > 0

"""SAM's attention without its bias of every pair of tokens.

Shapes: B windows or images, N = H * W tokens of each, h heads, D channels of a head.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import Attention, get_rel_pos
from torch import Tensor, nn


class FusedRelPosAttention(nn.Module):
    """Takes the place of timm's attention of SAM: relative positions as channels of q and k.

    The bias of a query and a key is the sum of a term for the key's row and one for its column.
    It is therefore a dot product: of the query's terms for every row and column, with the key's
    one-hot row and column. Appended to queries and keys, it needs no (N, N) bias, which torch's
    flash kernels do not take, and whose gradient none of its kernels on a CPU has. timm's three
    dimensional queries rule out the fused kernels altogether.

    Args:
        attention: timm's, with ``use_rel_pos``. Its weights are taken over under their names.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.attn_drop, self.proj = attention.attn_drop, attention.proj
        self.proj_drop = attention.proj_drop

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each of (B, H, W, C)."""
        size = x.shape[1:3]
        return self._project_back(self._attend(*self._project(x.flatten(1, 2)), size), size)

    def among_queries(
        self,
        x: Tensor,
        queries: Tensor,
        visible: Tensor | None,
        merge: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Attend within each window, to all queries besides; and from queries to whole images.

        Queries have no position: no bias is added between them and any token.

        Args:
            x: (I * W, H, W, C), the W windows of each of I images.
            queries: (I, Q, C).
            visible: (I, Q, N) boolean, True where a query may look at a token of its image; None is
                everywhere.
            merge: Makes (I * W, H, W, channels) of windows (I, N, channels) of images.

        Returns:
            The attended windows and queries, in the shapes of those.
        """
        size = x.shape[1:3]
        q, k, v = self._project(x.flatten(1, 2))
        own_q, own_k, own_v = self._project(queries)
        per_image = x.shape[0] // queries.shape[0]
        seen = [value.repeat_interleave(per_image, 0) for value in (own_k, own_v)]
        windows = self._project_back(self._attend(q, k, v, size, seen), size)

        def of_images(value: Tensor, own: Tensor) -> Tensor:
            channels = value.transpose(1, 2).flatten(2).unflatten(1, size)
            return torch.cat([own, self._split(merge(channels))], 2)

        if visible is not None:
            visible = torch.cat(
                [visible.new_ones(*queries.shape[:2], queries.shape[1]), visible], -1
            )
        attended = F.scaled_dot_product_attention(
            own_q,
            of_images(k, own_k),
            of_images(v, own_v),
            attn_mask=None if visible is None else visible[:, None],
            dropout_p=self.attn_drop.p if self.training else 0.0,
            scale=self.scale,
        )
        return windows, self._project_back(attended)

    def _split(self, x: Tensor) -> Tensor:
        """Make (B, T, h * D) of tokens (B, h, T, D)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, h, T, D) each, of tokens (B, T, C)."""
        q, k, v = (self._split(part) for part in self.qkv(x).chunk(3, -1))
        return self.q_norm(q), self.k_norm(k), v

    def _project_back(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return (B, T, C), or (B, H, W, C), of (B, h, T, D)."""
        x = x.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(x if size is None else x.unflatten(1, size)))

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        size: tuple[int, int],
        more: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Attend within (B, h, N, D), and to the keys and values (B, h, Q, D) of ``more``."""
        height, width = size
        grid = q.unflatten(2, (height, width))
        rows = get_rel_pos(height, height, self.rel_pos_h)  # (H, H, D)
        cols = get_rel_pos(width, width, self.rel_pos_w)
        terms = [
            torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3),
            torch.einsum("bnhwc,wkc->bnhwk", grid, cols).flatten(2, 3),
        ]
        # Kernels of half precision want a multiple of 8 channels, the same for all three.
        dim = q.shape[-1]
        padding = -(dim + height + width) % 8
        q = torch.cat([q * self.scale, *terms], -1)
        one_hot = _one_hot(height, width, k).expand(*k.shape[:2], -1, -1)
        k = torch.cat([k, one_hot], -1)
        if more is not None:
            k = torch.cat([F.pad(more[0], (0, height + width)), k], 2)
            v = torch.cat([more[1], v], 2)
        q, k = (F.pad(value, (0, padding)) for value in (q, k))
        v = F.pad(v, (0, q.shape[-1] - dim))
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v.to(q.dtype), dropout_p=dropout, scale=1.0)
        return x[..., :dim]


def _one_hot(height: int, width: int, like: Tensor) -> Tensor:
    """Return (N, H + W): the row and the column of every token."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)
    cols = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([rows, cols], 1)


def use_fused_rel_pos(vit: nn.Module) -> None:
    """Make every attention of a timm SAM with relative positions use the fused kernels."""
    for block in vit.blocks:
        if block.attn.use_rel_pos:
            block.attn = FusedRelPosAttention(block.attn)

"""SAM's attention without its bias of every pair of tokens.

Shapes: B windows or images, N = H * W tokens of each, h heads, D channels of a head.
"""

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
        batch, height, width, _ = x.shape
        tokens = height * width
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, h, N, D)
        q, k = self.q_norm(q), self.k_norm(k)
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
        one_hot = _one_hot(height, width, k).expand(batch, self.num_heads, -1, -1)
        k = torch.cat([k, one_hot], -1)
        q, k = (F.pad(value, (0, padding)) for value in (q, k))
        v = F.pad(v, (0, q.shape[-1] - dim))
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v.to(q.dtype), dropout_p=dropout, scale=1.0)
        x = x[..., :dim].transpose(1, 2).reshape(batch, height, width, -1)
        return self.proj_drop(self.proj(x))


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

"""Open blocks of timm's plain ViTs: what comes before them, and a block among queries.

Shape letters as in :mod:`open_blocks`; H: heads, D: channels of a head.
"""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfm_ss.compat.timm import open_relative_positions

from .open_blocks import attention_mask


def check_timm(vit: nn.Module, open_blocks: int) -> None:
    """Make a timm ViT ready to have its last blocks run among queries.

    Raises:
        ValueError: If they take no attention mask, or coordinates are shifted at random.
    """
    for block in vit.blocks[-open_blocks:]:
        takes = inspect.signature(block.forward).parameters
        if "attn_mask" not in takes and "shared_rel_pos_bias" not in takes:
            raise ValueError(
                f"open_blocks (for EoMT) is not implemented for timm's {type(vit).__name__}: its "
                f"{type(block).__name__} takes no attention mask; use another decode head"
            )
        for module in block.modules():
            open_relative_positions(module)
    if any(getattr(module, "aug_active", False) for module in vit.modules()):
        raise ValueError(
            "open_blocks (for EoMT) and rotary coordinates that are changed at random in training "
            "do not go together; leave out rope_rescale_coords and the like"
        )


def tokens_before(vit: nn.Module, first: int, x: Tensor) -> Tensor:
    """Return the tokens (B, n + N, C) before block ``first``, above 0, of images (B, 3, H, W)."""
    num_prefix_tokens = vit.num_prefix_tokens
    (found,) = vit.forward_intermediates(
        x,
        indices=[first - 1],
        return_prefix_tokens=num_prefix_tokens > 0,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    if num_prefix_tokens == 0:
        return found
    patches, prefix = found
    return torch.cat([prefix, patches], 1)


def positions_of(vit: nn.Module) -> Tensor | None:
    """Return what timm gives its blocks beside the tokens.

    It is the rotary embedding, ([depth, H,] N, 2 * D), or BEiT's shared bias, (H, n + N, n + N).
    """
    rope = getattr(vit, "rope", None)
    if rope is not None:
        cached = hasattr(rope, "feat_shape") and not vit.dynamic_img_size
        return rope.get_embed() if cached else rope.get_embed(shape=vit.patch_embed.grid_size)
    shared = getattr(vit, "rel_pos_bias", None)
    return None if shared is None else shared()


def run_timm_block(
    vit: nn.Module,
    index: int,
    tokens: Tensor,
    num_queries: int,
    visible: Tensor | None,
    positions: Tensor | None,
) -> Tensor:
    """Run a block on (B, T, C), queries first; they have no position, as prefix tokens.

    A rotary embedding is the identity for them, and relative positions add nothing between them
    and other tokens.
    """
    block = vit.blocks[index]
    mask = None if visible is None else attention_mask(visible, vit.num_prefix_tokens)
    takes = inspect.signature(type(block).forward).parameters
    if "shared_rel_pos_bias" in takes:
        bias = None if positions is None else _padded(positions, num_queries)[None]
        if mask is not None:
            mask = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill_(~mask, float("-inf"))
            bias = mask if bias is None else bias + mask
        return block(tokens, shared_rel_pos_bias=bias)
    if positions is None:
        return block(tokens, attn_mask=mask)
    rope = positions[index] if getattr(vit, "rope_mixed", False) else positions
    return block(tokens, rope=_with_unrotated(rope, num_queries), attn_mask=mask)


def _padded(bias: Tensor, num_queries: int) -> Tensor:
    return F.pad(bias, (num_queries, 0, num_queries, 0))


def _with_unrotated(rope: Tensor, count: int) -> Tensor:
    """Put ``count`` tokens that keep their angle before those of a rotary embedding.

    timm leaves out the first n of all tokens, Q + n + N here, and rotates Q + N.
    """
    sin, cos = rope.tensor_split(2, -1)
    pad = (0, 0, count, 0)
    return torch.cat([F.pad(sin, pad), F.pad(cos, pad, value=1.0)], -1)

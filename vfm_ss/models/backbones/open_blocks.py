"""The last blocks of a ViT, which a decode head runs with queries of its own among the tokens.

Shape letters:
    B: images; C: embedding width; h, w: grid of patches; N = h * w: patch tokens; n: prefix tokens
    (class token, registers); Q: queries; T = Q + n + N: all tokens, in this order.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_activations

#: Blocks left to the queries (L1 of EoMT, arXiv 2503.19108) by the ViT's depth: 3 for S and B,
#: 4 for L, 5 for g. B, L and g are the paper's, S is LightlyTrain's (0.18).
PUBLISHED = {12: 3, 24: 4, 40: 5}


class OpenBlocks:
    """What a backbone with ``open_blocks`` returns: the tokens before its last blocks, and these.

    It holds no parameters: the blocks are and stay the backbone's, with its learning rates, its
    checkpointing and its names in checkpoints.

    Args:
        backbone: The ``PlainViT``.
        tokens: (B, n + N, C), before the first open block.
        positions: What the library gives its blocks beside the tokens.

    Attributes:
        tokens: As above.
        grid_size: (h, w).
        num_prefix_tokens: n.
    """

    def __init__(self, backbone: nn.Module, tokens: Tensor, positions: Any):
        self.tokens = tokens
        self.grid_size = backbone.grid_size
        self.num_prefix_tokens = tokens.shape[1] - self.grid_size[0] * self.grid_size[1]
        self._backbone = backbone
        self._positions = positions

    def __len__(self) -> int:
        return self._backbone.open_blocks

    def run(self, index: int, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """Run an open block.

        Args:
            index: Which one, from 0.
            tokens: (B, T, C).
            visible: (B, Q, N) boolean, True where a query may look at a patch; None is everywhere.
                Queries always see each other and the prefix tokens; these and the patches see all.

        Returns:
            (B, T, C).
        """
        backbone = self._backbone
        block = len(backbone.blocks) - len(self) + index
        args = (block, tokens, tokens.shape[1] - self.tokens.shape[1], visible, self._positions)
        if backbone.with_cp and torch.is_grad_enabled():
            return checkpoint_activations(backbone.run_open_block, *args, use_reentrant=False)
        return backbone.run_open_block(*args)

    def norm(self, tokens: Tensor) -> Tensor:
        """Apply the ViT's final norm, where it has one, to (B, T, C)."""
        return self._backbone.final_norm(tokens)


def number_of_open_blocks(given: int | str, depth: int, out_indices: list[int]) -> int:
    """Check a backbone's ``open_blocks``; ``'auto'`` is the published number for its depth.

    Raises:
        ValueError: If there is no such number of blocks, or ``out_indices`` asks for maps, too.
    """
    if given == 0:
        return 0
    number = PUBLISHED.get(depth) if given == "auto" else given
    if number is None:
        raise ValueError(
            f"open_blocks='auto' is known for {', '.join(map(str, PUBLISHED))} blocks, but the "
            f"ViT has {depth}; state the number"
        )
    if not isinstance(number, int) or not 0 < number < depth:
        raise ValueError(
            f"open_blocks={given!r} must be 'auto', or a number above 0 and below the {depth} "
            "blocks of the ViT"
        )
    if out_indices != [depth - 1]:
        raise ValueError(
            f"open_blocks={given!r} leaves the last blocks to the head, so there are no maps of "
            f"blocks {out_indices}; leave out out_indices"
        )
    return number


def attention_mask(visible: Tensor, num_prefix_tokens: int) -> Tensor:
    """Return (B, 1, T, T), True where a token may look, from (B, Q, N) of ``OpenBlocks.run``."""
    batch, queries, patches = visible.shape
    others = queries + num_prefix_tokens
    rows = torch.cat([visible.new_ones(batch, queries, others), visible], -1)
    rest = visible.new_ones(batch, num_prefix_tokens + patches, others + patches)
    return torch.cat([rows, rest], 1)[:, None]

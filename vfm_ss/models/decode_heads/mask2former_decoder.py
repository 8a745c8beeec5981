"""Single-scale Mask2Former decoder (Cheng et al., arXiv 2112.01527; arXiv 2404.12172, section 3).

Shape letters:
    B: images; C: input channels; D: decoder channels; h, w: feature grid; N = h * w: tokens;
    Q: queries; K: classes; L: decoder layers; P = L + 1: predictions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sine_position_embedding(
    height: int, width: int, channels: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return DETR's normalised sine embedding of every cell of a grid.

    The first half of the channels encodes the row, the second half the column. Cells are counted
    from 1 and scaled so that the last one is at 2 pi; wavelengths grow geometrically to 10,000.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        channels: Channels of the embedding, a multiple of 4.
        device: Device of the result.
        dtype: Floating point type of the result.

    Returns:
        ``(height * width, channels)``, cells in row-major order.
    """
    pair = torch.arange(channels // 4, device=device, dtype=dtype)
    wavelength = 10000 ** (4 * pair / channels)

    def encode(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device, dtype=dtype)
        position = position / (length + 1e-6) * (2 * math.pi)
        angle = position[:, None] / wavelength
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    rows = encode(height)[:, None].expand(height, width, channels // 2)
    columns = encode(width)[None].expand(height, width, channels // 2)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head attention with separate inputs for query, key and value.

    Args:
        channels: Channels D of all inputs and of the output.
        num_heads: Number of heads; divides ``channels``.
    """

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None):
        """Attend from ``query`` to ``key``.

        Args:
            query: ``(B, Q, D)``.
            key: ``(B, N, D)``.
            value: ``(B, N, D)``.
            mask: ``(B, Q, N)`` boolean, True where attention is allowed. Default: everywhere.

        Returns:
            ``(B, Q, D)``.
        """
        query = self._split(self.query(query))
        key = self._split(self.key(key))
        value = self._split(self.value(value))
        if mask is not None:
            mask = mask[:, None]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention and feed-forward network, each with a post-norm.

    Args:
        channels: Channels D.
        num_heads: Number of attention heads.
        feedforward_channels: Hidden channels of the feed-forward network.
    """

    def __init__(self, channels: int, num_heads: int, feedforward_channels: int):
        super().__init__()
        self.cross_attn = Attention(channels, num_heads)
        self.cross_attn_norm = nn.LayerNorm(channels)
        self.self_attn = Attention(channels, num_heads)
        self.self_attn_norm = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(),
            nn.Linear(feedforward_channels, channels),
        )
        self.ffn_norm = nn.LayerNorm(channels)
        self._init_cross_attn(channels)

    def _init_cross_attn(self, channels: int) -> None:
        # As nn.MultiheadAttention initialises itself (Xavier over the three stacked input
        # projections, no biases), which is what the authors' cross-attention is. Their
        # self-attention and everything else has the default of nn.Linear.
        bound = math.sqrt(6 / (channels + 3 * channels))
        for projection in (self.cross_attn.query, self.cross_attn.key, self.cross_attn.value):
            nn.init.uniform_(projection.weight, -bound, bound)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.cross_attn.out.bias)

    def forward(self, x: Tensor, pos: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Update the queries.

        Args:
            x: Queries, ``(B, Q, D)``.
            pos: Positions of the queries, ``(Q, D)``; added to queries and keys, never to values.
            key: Image tokens with their positions, ``(B, N, D)``.
            value: Image tokens, ``(B, N, D)``.
            mask: ``(B, Q, N)`` boolean, True where a query may look.

        Returns:
            Updated queries, ``(B, Q, D)``.
        """
        x = self.cross_attn_norm(x + self.cross_attn(x + pos, key, value, mask))
        x = self.self_attn_norm(x + self.self_attn(x + pos, x + pos, x))
        return self.ffn_norm(x + self.ffn(x))


class SingleScaleMask2FormerDecoder(nn.Module):
    """Mask2Former for a plain ViT: one linear projection takes the pixel decoder's place.

    Every layer attends to the same single-scale features, and masks are predicted at their
    resolution. The norm, the class layer and the mask MLP are shared by all predictions.

    Args:
        in_channels: Channels C of the feature map.
        num_classes: Number of classes K, without no-object.
        channels: Channels D of the decoder; a multiple of 4 and of ``num_heads``.
        num_queries: Number of queries Q.
        num_layers: Number of decoder layers L.
        num_heads: Number of attention heads.
        feedforward_channels: Hidden channels of the feed-forward networks.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        num_queries: int = 100,
        num_layers: int = 9,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
    ):
        super().__init__()
        self.input_proj = nn.Linear(in_channels, channels)
        self.queries = nn.Embedding(num_queries, channels)
        self.query_pos = nn.Embedding(num_queries, channels)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads, feedforward_channels) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.class_layer = nn.Linear(channels, num_classes + 1)
        self.mask_mlp = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from the initial queries and after every layer.

        Args:
            features: ``(B, C, h, w)``.

        Returns:
            Class logits ``(P, B, Q, K + 1)``, no-object last, and mask logits ``(P, B, Q, h, w)``.
        """
        height, width = features.shape[-2:]
        tokens = self.input_proj(features.flatten(2).transpose(1, 2))
        # As autocast would hand it to the layers, and as a model in half precision needs it.
        keys = (tokens + self._token_positions(height, width, tokens)).to(tokens.dtype)
        x = self.queries.weight.expand(features.shape[0], -1, -1)

        predictions = [self._predict(x, tokens)]
        for layer in self.layers:
            mask = self._attention_mask(predictions[-1][1])
            x = layer(x, self.query_pos.weight, keys, tokens, mask)
            predictions.append(self._predict(x, tokens))
        class_logits, mask_logits = (
            torch.stack(logits) for logits in zip(*predictions, strict=True)
        )
        return class_logits, mask_logits.unflatten(-1, (height, width))

    def _token_positions(self, height: int, width: int, tokens: Tensor) -> Tensor:
        # Half precision cannot hold the angles: at least float32, also under autocast.
        dtype = torch.promote_types(tokens.dtype, torch.float32)
        return sine_position_embedding(height, width, tokens.shape[-1], tokens.device, dtype)

    def _predict(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        return self.class_layer(x), self.mask_mlp(x) @ tokens.transpose(1, 2)

    @staticmethod
    def _attention_mask(mask_logits: Tensor) -> Tensor:
        """Let a query look where its mask is foreground, or everywhere if that is nowhere."""
        foreground = mask_logits.detach() >= 0
        return foreground | ~foreground.any(dim=-1, keepdim=True)

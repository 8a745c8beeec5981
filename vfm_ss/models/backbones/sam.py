import math

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from timm.layers import resample_abs_pos_embed_nhwc, resample_patch_embed
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import Tensor, nn

from .rel_pos_attention import FusedRelPosAttention, use_fused_rel_pos
from .vfm import VFMBackbone

#: Side of SAM's pretraining grid (1024 pixels / 16) and of its attention windows, in tokens.
PRETRAINED_GRID = 64
PRETRAINED_WINDOW = 14


def scaled_window(grid_size: tuple[int, int], patch_size: int) -> int:
    """Return the side of SAM's attention windows in tokens, scaled with the grid.

    The shorter side decides for a grid that is not square, as it is the side that inference
    resizes to the crop size.

    Args:
        grid_size: Height and width of the image in tokens.
        patch_size: Patch size in pixels, for the message.

    Raises:
        ValueError: If the scaled window is no whole number; says which sizes work.
    """
    side = min(grid_size)
    if side * PRETRAINED_WINDOW % PRETRAINED_GRID:
        step = PRETRAINED_GRID // math.gcd(PRETRAINED_GRID, PRETRAINED_WINDOW) * patch_size
        raise ValueError(
            f"SAM's windows would be {side * PRETRAINED_WINDOW / PRETRAINED_GRID:.2f} tokens wide "
            f"at {side * patch_size} pixels and patch size {patch_size}; the shorter side of "
            f"img_size must be a multiple of {step}: {step}, {2 * step}, {3 * step}, ..."
        )
    return side * PRETRAINED_WINDOW // PRETRAINED_GRID


def resize_rel_pos(rel_pos: Tensor, length: int) -> Tensor:
    """Resize a relative position embedding linearly.

    Args:
        rel_pos: (2G - 1, D) for attention over G tokens along an axis.
        length: 2g - 1 for the new number of tokens g. The authors of the benchmark resize to
            2g + 1, which leaves the zero offset off the centre; see docs/fidelity.md.

    Returns:
        (length, D).
    """
    return F.interpolate(rel_pos.T[None].float(), size=length, mode="linear")[0].T.to(rel_pos)


@MODELS.register_module()
class SAM(VFMBackbone):
    """SAM's image encoder without its neck: windowed attention and relative positions.

    Position embeddings are resized at load time, relative ones to 2g - 1, and the attention
    windows scale with the grid, so they cover the same share of the image as at pretraining.
    ``window_size`` in tokens overrides that.
    """

    key = "sam"

    def _build(self, model_name: str, window_size: int | None = None, **timm_kwargs) -> nn.Module:
        if window_size is None:
            window_size = scaled_window(self.grid_size, self.patch_size)
        vit = super()._build(model_name, window_size=window_size, **timm_kwargs)
        use_fused_rel_pos(vit)
        return vit

    def _check_open_blocks(self) -> None:
        if not all(isinstance(block.attn, FusedRelPosAttention) for block in self._last_blocks()):
            raise ValueError("open_blocks (for EoMT) needs SAM's relative positions: use_rel_pos")

    def _last_blocks(self) -> nn.Module:
        return self.blocks[-self.open_blocks :]

    def _open(self, x: Tensor) -> tuple[Tensor, None]:
        first = len(self.blocks) - self.open_blocks
        (found,) = self.vit.forward_intermediates(
            x, indices=[first - 1], stop_early=True, intermediates_only=True
        )
        return found.flatten(2).transpose(1, 2), None

    def run_open_block(
        self, index: int, tokens: Tensor, num_queries: int, visible: Tensor | None, positions: None
    ) -> Tensor:
        """Run block ``index`` with queries before its tokens; see ``OpenBlocks.run``.

        Patches attend within their window, as ever, and to all queries; queries attend to each
        other and to all patches, also in blocks with windows.
        """
        block, grid, side = self.blocks[index], self.grid_size, self.blocks[index].window_size
        x = block.norm1(tokens)
        queries, patches = x[:, :num_queries], x[:, num_queries:].unflatten(1, grid)
        if side > 0:
            patches, padded = window_partition(patches, side)

        def merge(windows: Tensor) -> Tensor:
            if side > 0:
                windows = window_unpartition(windows, side, grid, padded)
            return windows.flatten(1, 2)

        patches, queries = block.attn.among_queries(patches, queries, visible, merge)
        attended = torch.cat([queries, merge(patches)], 1)
        tokens = tokens + block.drop_path1(block.ls1(attended))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        target = {name: value.shape for name, value in self.vit.state_dict().items()}
        converted = super()._convert(state_dict)
        for name, value in converted.items():
            if name not in target or value.shape == target[name]:
                continue
            if name == "patch_embed.proj.weight":
                converted[name] = resample_patch_embed(value, list(target[name][-2:]))
            elif name == "pos_embed":
                converted[name] = resample_abs_pos_embed_nhwc(value, list(target[name][1:3]))
            elif name.endswith(("rel_pos_h", "rel_pos_w")):
                converted[name] = resize_rel_pos(value, target[name][0])
        return converted

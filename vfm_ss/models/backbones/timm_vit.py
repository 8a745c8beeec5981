"""Any plain ViT of timm as an mmseg backbone.

Shapes: B batch, C embedding width, H and W image size in pixels, P patch size in pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.layers import to_2tuple
from torch import Tensor, nn

from . import checkpoint


@MODELS.register_module()
class TimmViT(BaseModule):
    """A plain vision transformer of timm, resized once to the image and patch size of the task.

    Pretrained patch embeddings are resized as in FlexiViT (pseudo-inverse resize, arXiv
    2212.08013) and position embeddings bicubically, both by timm and at load time; training then
    updates the resized ones. Heads, pools and blocks that the outputs do not need are removed, so
    every parameter has a gradient.

    Args:
        model_name: timm model name, with its pretrained tag where there are several
            (``'vit_base_patch14_dinov2.lvd142m'``).
        patch_size: Patch size P in pixels.
        img_size: Input size in pixels, one number or (H, W), multiples of P.
        pretrained: True for timm's weights from the Hugging Face Hub, False for random ones, or
            the path of a ``.safetensors`` or weights-only ``.pth`` file in timm's or the authors'
            layout.
        frozen: Keep the backbone in eval mode, without gradients or graph (linear probing).
        out_indices: Blocks whose outputs are returned, negative ones counting from the last, in
            ascending order. The final norm belongs to the last block and is applied to its output
            only, as in mmseg's own ``VisionTransformer``.
        with_cp: Gradient checkpointing: keep the inputs of the blocks only and compute the rest
            again in the backward pass. Less memory for about a third more time.
        compile: Compile the backbone in place with ``torch.compile``, whose options may be given
            as a dict. Names of weights and checkpoints stay the same. The authors found that EVA-02
            loses mIoU when compiled.
        **timm_kwargs: Anything else that ``timm.create_model`` takes (``depth``,
            ``drop_path_rate``, ...).

    Raises:
        ValueError: On sizes that do not fit, a model that is no plain ViT, or weights that do not
            match it.
        FileNotFoundError: If the weights cannot be found.
    """

    def __init__(
        self,
        model_name: str,
        patch_size: int = 16,
        img_size: int | Sequence[int] = 512,
        pretrained: bool | str | Path = True,
        frozen: bool = False,
        out_indices: int | Sequence[int] = -1,
        with_cp: bool = False,
        compile: bool | dict = False,
        **timm_kwargs,
    ):
        super().__init__()
        self.img_size = tuple(int(size) for size in to_2tuple(img_size))
        self.patch_size = int(patch_size)
        if any(size < 1 or size % self.patch_size for size in self.img_size):
            raise ValueError(
                f"img_size {self.img_size} must be a multiple of patch_size {self.patch_size}"
            )
        self.vit = self._build(model_name, **timm_kwargs)
        self.mean, self.std = self._statistics()
        if pretrained is not False:
            self._load(pretrained)
        self._prune(out_indices)
        self.embed_dim = self.vit.embed_dim
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()
        if with_cp:
            self._checkpoint_activations()
        if compile:
            self.compile(**({} if compile is True else compile))

    def _build(self, model_name: str, **timm_kwargs) -> nn.Module:
        try:
            vit = timm.create_model(
                model_name,
                pretrained=False,
                img_size=self.img_size,
                patch_size=self.patch_size,
                num_classes=0,
                **timm_kwargs,
            )
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"timm cannot build {model_name!r} as a ViT: {error}") from error
        if not all(hasattr(vit, name) for name in ("blocks", "patch_embed", "pos_embed")):
            raise ValueError(
                f"{model_name!r} is no plain ViT: it lacks timm's blocks, patch_embed or pos_embed"
            )
        return vit

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std of each RGB channel in [0, 1] that the weights were trained with."""
        cfg = self.vit.pretrained_cfg
        return tuple(cfg["mean"]), tuple(cfg["std"])

    def _load(self, pretrained: bool | str | Path) -> None:
        if pretrained is True:
            state_dict, source = checkpoint.read_hub(self.vit)
        else:
            state_dict, source = checkpoint.read_file(pretrained), str(pretrained)
        checkpoint.load_strict(self.vit, self._convert(state_dict), source)

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn a published state dict into this model's, renamed and resized."""
        return checkpoint.to_timm(state_dict, self.vit)

    def _prune(self, out_indices: int | Sequence[int]) -> None:
        depth = len(self.vit.blocks)
        indices = self.out_indices = block_indices(out_indices, depth)
        self._has_norm = indices[-1] == depth - 1 and not self._norm_is_head()
        self.vit.prune_intermediate_layers(indices, prune_norm=not self._has_norm, prune_head=True)

    def _checkpoint_activations(self) -> None:
        self.vit.set_grad_checkpointing()

    def _norm_is_head(self) -> bool:
        """Whether what timm prunes as the final norm is not part of the dense features."""
        return False

    def init_weights(self) -> None:
        """Do nothing: the constructor has initialised or loaded every weight.

        mmengine would otherwise call the ``init_weights`` of timm's module, which overwrites
        pretrained weights with random ones.
        """

    def train(self, mode: bool = True) -> "TimmViT":
        """Set training mode; a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of normalised images.

        Args:
            x: (B, 3, H, W), normalised with ``mean`` and ``std``.

        Returns:
            One (B, C, H/P, W/P) map for each of ``out_indices``.

        Raises:
            ValueError: If H and W are not ``img_size``.
        """
        if tuple(x.shape[-2:]) != self.img_size:
            raise ValueError(
                f"got an image of {tuple(x.shape[-2:])} pixels, but the backbone was built for "
                f"img_size={self.img_size}; build it for this size, or test with mode='slide' and "
                f"crop_size={self.img_size}"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return tuple(self._features(x))

    def _features(self, x: Tensor) -> Sequence[Tensor]:
        outs = self.vit.forward_intermediates(
            x, indices=self.out_indices, output_fmt="NCHW", intermediates_only=True
        )
        if self._has_norm:
            last = outs[-1].permute(0, 2, 3, 1)
            outs[-1] = self.vit.norm(last).permute(0, 3, 1, 2)
        return outs


def block_indices(out_indices: int | Sequence[int], depth: int) -> list[int]:
    """Return the numbers of the blocks that ``out_indices`` means, negative ones resolved.

    Raises:
        ValueError: If they are not ascending or there are no such blocks.
    """
    given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    indices = [index + depth if index < 0 else index for index in given]
    in_range = bool(indices) and all(0 <= index < depth for index in indices)
    if not in_range or indices != sorted(set(indices)):
        raise ValueError(f"out_indices {out_indices} must be ascending block numbers below {depth}")
    return indices

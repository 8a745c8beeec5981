"""Any plain ViT of timm as an mmseg backbone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from timm.layers import resample_abs_pos_embed, to_2tuple
from timm.models import group_parameters
from torch import Tensor, nn

from vfm_ss.compat.timm import apply_filter, create_model, stop_rope_augmentation
from vfm_ss.protocol.weight_files import config_beside, files_of

from . import checkpoint
from .layouts import check_config, from_transformers, refuse_dropped_biases, unwrap
from .lora import is_of_adapter
from .plain_vit import PlainViT
from .timm_open_blocks import check_timm, positions_of, run_timm_block, tokens_before


@MODELS.register_module()
class TimmViT(PlainViT):
    """A plain vision transformer of timm.

    Pretrained patch embeddings are resized as in FlexiViT (pseudo-inverse resize, arXiv
    2212.08013) and position embeddings bicubically, both by timm and at load time (bilinearly where
    timm does so: FlexiViT, C-RADIO); training then updates the resized ones.

    The arguments are those of :class:`PlainViT`. ``model_name`` has timm's pretrained tag where
    there are several (``'vit_base_patch14_dinov2.lvd142m'``); ``pretrained`` is True for timm's
    weights from the Hugging Face Hub, or a file in the layout of timm, the authors or Hugging Face
    transformers, also as part of a larger checkpoint; all others go to ``timm.create_model``
    (``depth``, ``drop_path_rate``, ...). What timm does at random to rotary
    coordinates in training (Sapiens2) is off, unless ``rope_rescale_coords`` or the like is given.
    """

    blocks_name = "blocks"

    #: Other names that checkpoints give to the final norm of the tokens.
    final_norm_names: ClassVar[tuple[str, ...]] = ()

    def _build(self, model_name: str, **timm_kwargs) -> nn.Module:
        try:
            vit, self._filter = create_model(
                model_name,
                img_size=self.img_size,
                patch_size=self.patch_size,
                num_classes=0,
                **timm_kwargs,
            )
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"timm cannot build {model_name!r} as a ViT: {reason}") from error
        if not all(hasattr(vit, name) for name in ("blocks", "patch_embed", "pos_embed")):
            raise ValueError(
                f"{model_name!r} is not a plain ViT: it lacks timm's blocks, patch_embed or "
                "pos_embed"
            )
        patch, grid = to_2tuple(vit.patch_embed.patch_size), tuple(vit.patch_embed.grid_size)
        if set(patch) != {self.patch_size} or grid != self.grid_size:
            raise ValueError(
                f"{model_name!r} is not a plain ViT: asked for {self.grid_size} patches of "
                f"{self.patch_size} pixels, timm builds {grid} of {patch} behind a stem of its own"
            )
        if not any(name.endswith("_coords") for name in timm_kwargs):
            stop_rope_augmentation(vit)
        return vit

    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.vit.pretrained_cfg["mean"], self.vit.pretrained_cfg["std"]

    def _full_name(self, model_name: str, published: bool) -> str:
        if published:
            return checkpoint.published_name(self.vit)
        return self.vit.pretrained_cfg["architecture"]

    def _read(self, pretrained: bool | str | Path) -> tuple[dict[str, Tensor], str, list[Path]]:
        if pretrained is True:
            return checkpoint.read_hub(self.vit)
        state_dict = checkpoint.read_file(pretrained)
        with checkpoint.converting(self.vit, {}, str(pretrained), self._name):
            check_config(config_beside(pretrained), self.vit)
        return state_dict, str(pretrained), files_of(pretrained)

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        state_dict, what = unwrap(state_dict)
        if what:
            _log(self, what)
        state_dict = from_transformers(state_dict, self.vit)
        converted = apply_filter(self._filter, state_dict, self.vit)
        if "conv1.weight" in state_dict or "visual.conv1.weight" in state_dict:
            # timm renames Perception Encoder's published layout without resizing it.
            converted = apply_filter(self._filter, converted, self.vit)
        refuse_dropped_biases(state_dict, converted)
        if not ("vit." in what and "patch_embed.proj.weight" in state_dict):  # not our own run's
            self._resize_square_positions(state_dict, converted)
        return self._with_final_norm(converted)

    def _resize_square_positions(
        self, given: Mapping[str, Tensor], converted: dict[str, Tensor]
    ) -> None:
        """Resize positions of a square to a grid of as many tokens: timm goes by their number."""
        positions, (height, width) = converted.get("pos_embed"), self.grid_size
        if positions is None or positions.ndim != 3 or height == width:
            return
        apart = getattr(self.vit, "no_embed_class", False)
        prefix = 0 if apart else getattr(self.vit, "num_prefix_tokens", 1)
        squares = math.isqrt(height * width) ** 2 == positions.shape[1] - prefix == height * width
        if squares and any(
            isinstance(value, Tensor)
            and value.numel() == positions.numel()
            and torch.equal(value.flatten(), positions.flatten())
            for value in given.values()
        ):
            options = getattr(self._filter, "keywords", {})
            converted["pos_embed"] = resample_abs_pos_embed(
                positions,
                [height, width],
                num_prefix_tokens=prefix,
                interpolation=options.get("interpolation", "bicubic"),
                antialias=options.get("antialias", True),
            )

    def _with_final_norm(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        for prefix in self.final_norm_names:
            for name in [name for name in state_dict if name.startswith(prefix)]:
                state_dict[f"norm.{name.removeprefix(prefix)}"] = state_dict.pop(name)
        expected = "norm.weight" in self.vit.state_dict()
        if expected and "norm.weight" not in state_dict and "fc_norm.weight" in state_dict:
            # A classifier that norms the average of the tokens, not the tokens themselves.
            self.vit.norm = nn.Identity()
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith("fc_norm.")}
            _log(self, "its norm follows the average of the tokens: features have no final norm")
        return state_dict

    def _replace(self, vit: nn.Module, by: nn.Module) -> None:
        if isinstance(getattr(by, "norm", None), nn.Identity):
            vit.norm = _identity_for(vit.norm)
        super()._replace(vit, by)

    def fit(self, state_dict: Mapping[str, Tensor]) -> None:
        """Drop the final norm where all but that is there, as `_with_final_norm` has done."""
        own = {name for name, _ in self.named_parameters() if not is_of_adapter(name)}
        lacking = own - state_dict.keys()
        if lacking and all(name.startswith("vit.norm.") for name in lacking):
            self.vit.norm = nn.Identity()

    def _prune(self, indices: list[int]) -> None:
        # SAM's end is a neck, which timm prunes as others' norm: no part of the dense features.
        self._has_norm = indices[-1] == len(self.blocks) - 1 and hasattr(self.vit, "norm")
        self.vit.prune_intermediate_layers(indices, prune_norm=not self._has_norm, prune_head=True)

    def _layer_id(self, name: str) -> int:
        return group_parameters(self.vit, self.vit.group_matcher(coarse=False), reverse=True)[name]

    def _features(self, x: Tensor) -> Sequence[Tensor]:
        outs = self.vit.forward_intermediates(
            x, indices=self.out_indices, output_fmt="NCHW", intermediates_only=True
        )
        if self._has_norm:
            last = outs[-1].permute(0, 2, 3, 1)
            outs[-1] = self.vit.norm(last).permute(0, 3, 1, 2)
        return outs

    def _check_open_blocks(self) -> None:
        check_timm(self.vit, self.open_blocks)

    def _open(self, x: Tensor) -> tuple[Tensor, Any]:
        first = len(self.blocks) - self.open_blocks
        return tokens_before(self.vit, first, x), positions_of(self.vit)

    def run_open_block(
        self, index: int, tokens: Tensor, num_queries: int, visible: Tensor | None, positions: Any
    ) -> Tensor:
        """Run block ``index`` with queries before its tokens; see ``OpenBlocks.run``."""
        return run_timm_block(self.vit, index, tokens, num_queries, visible, positions)

    def final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the final norm, where there is one, to (B, T, C)."""
        return self.vit.norm(tokens) if self._has_norm else tokens


def _identity_for(norm: nn.Module) -> nn.Module:
    """Return an identity with the attributes that mmengine gives to every module for a while."""
    identity = nn.Identity()
    for name, value in vars(norm).items():
        if not hasattr(identity, name):
            setattr(identity, name, value)
    return identity


def _log(backbone: nn.Module, what: str) -> None:
    print_log(f"Pretrained weights of {type(backbone).__name__}: {what}", "current")

"""Any plain ViT of mmpretrain as an mmseg backbone."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmseg.registry import MODELS
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import (
    resample_abs_pos_embed,
    resample_abs_pos_embed_nhwc,
    resample_patch_embed,
    resize_rel_pos_bias_table,
)
from torch import Tensor, nn

from vfm_ss.compat.mmpretrain import init_weights_quietly
from vfm_ss.protocol.weight_files import files_of

from . import checkpoint
from .plain_vit import PlainViT
from .sam import resize_rel_pos, scaled_window

#: mmpretrain's plain vision transformers.
MODEL_NAMES = (
    "VisionTransformer",
    "DistilledVisionTransformer",
    "DeiT3",
    "BEiTViT",
    "ViTEVA02",
    "ViTSAM",
)
# What mmpretrain saves beside the backbone: classifiers and what only pretraining uses.
_OTHER_PARTS = (
    "data_preprocessor.",
    "head.",
    "momentum_encoder.",
    "neck.",
    "target_generator.",
    "teacher.",
)
# Parts of its backbones that dense features do not pass: the norm of averaged tokens, SAM's neck,
# and what a masked image model adds.
_NO_FEATURES = ("ln2.", "channel_reduction.", "mask_token")
# Buffers that follow from the grid of tokens; those of the new grid stay.
_GRID_BUFFERS = ("relative_position_index", "freqs_cos", "freqs_sin")
_SHARED_BIAS = "rel_pos_bias.relative_position_bias_table"
_ARCHS = {"b": "base", "base": "base", "deit-base": "base", "l": "large", "large": "large"}


@MODELS.register_module()
class MMPretrainViT(PlainViT):
    """A plain vision transformer of mmpretrain, for models that were pretrained with it.

    Features are those of mmpretrain's own ``out_type='featmap'``. Weights are resized at load time,
    as in ``TimmViT``: patch embeddings as in FlexiViT, position embeddings bicubically, SAM's
    relative positions and windows as in :class:`SAM`, BEiT's relative position tables by timm's
    rule. EVA-02's rotary embedding is mmpretrain's for the new grid.

    mmpretrain's DeiT3 applies the first norm of a block twice and the second one never. That is
    how it trains, and kept; the unused norm is removed.

    Args:
        model: Class in mmpretrain's registry: ``VisionTransformer``,
            ``DistilledVisionTransformer``, ``DeiT3``, ``BEiTViT``, ``ViTEVA02`` or ``ViTSAM``.
        arch: Name or dict, as mmpretrain takes it.
        *args: As of :class:`PlainViT`, from ``patch_size`` on. ``pretrained`` is False, or the path
            of a checkpoint that mmpretrain saved (of a whole model, a self-supervised one
            included, or of a backbone alone). There is no default download: True is an error.
        **kwargs: The other arguments of :class:`PlainViT` (``mean`` and ``std`` are ImageNet's by
            default), and anything else that the class takes (``final_norm``,
            ``use_rel_pos_bias``, ...).

    Raises:
        ImportError: If mmpretrain is not installed.
    """

    blocks_name = "layers"

    def __init__(self, model: str, arch: str | dict = "base", *args, **kwargs):
        self._arch_name = arch if isinstance(arch, str) else ""
        super().__init__(model, *args, arch=arch, **kwargs)
        self.arch = _ARCHS.get(arch.lower()) if isinstance(arch, str) else None

    def _build(self, model_name: str, **kwargs) -> nn.Module:
        if model_name not in MODEL_NAMES:
            raise ValueError(
                f"{model_name!r} is not a plain ViT of mmpretrain; model must be one of "
                f"{', '.join(MODEL_NAMES)}"
            )
        try:
            from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
        except ImportError as error:
            raise ImportError(
                f"MMPretrainViT needs mmpretrain ({error}); install it with: "
                "pip install 'vfm_ss[mminstall]'"
            ) from error
        if model_name == "ViTSAM":
            kwargs.setdefault("out_channels", 0)  # without its neck
            if "window_size" not in kwargs:
                kwargs["window_size"] = scaled_window(self.grid_size, self.patch_size)
        cfg = {"img_size": self.img_size, "patch_size": self.patch_size, "out_type": "featmap"}
        try:
            vit = MMPRETRAIN_MODELS.build(
                {"type": model_name, "_scope_": "mmpretrain", **cfg, **kwargs}
            )
        except (AssertionError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"mmpretrain cannot build {model_name}: {reason}") from error
        init_weights_quietly(vit)
        if model_name == "DeiT3":
            for layer in vit.layers:
                layer.ln2 = nn.Identity()
        vit.embed_dim = vit.embed_dims if not getattr(vit, "out_channels", 0) else vit.out_channels
        return vit

    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def _full_name(self, model_name: str, published: bool) -> str:
        return "-".join(filter(None, (model_name, self._arch_name)))

    def _read(self, pretrained: bool | str | Path) -> tuple[dict[str, Tensor], str, list[Path]]:
        if pretrained is True:
            raise ValueError(
                "mmpretrain publishes weights by the name of a config, not of a model; download "
                "the file and pass pretrained='/path/to/checkpoint.pth', or pass pretrained=False "
                "for random weights"
            )
        state_dict = _of_backbone(_read(pretrained), pretrained)
        return state_dict, str(pretrained), files_of(pretrained)

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.vit.state_dict()
        state_dict = _expand_shared_bias(state_dict, own)
        converted = {}
        for name, value in state_dict.items():
            if name in own:
                converted[name] = self._resize(name, value, own[name])
            elif not name.startswith(_NO_FEATURES) and not self._is_unused_norm(name):
                converted[name] = value
        converted.update({k: v for k, v in own.items() if k.endswith(_GRID_BUFFERS)})
        return {k: v for k, v in converted.items() if k in own or not k.endswith(_GRID_BUFFERS)}

    def _is_unused_norm(self, name: str) -> bool:
        return type(self.vit).__name__ == "DeiT3" and ".ln2." in name

    def _resize(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Resize one weight to the grid and patches of this model; others stay as they are."""
        grid = list(self.vit.patch_resolution)
        if name == "patch_embed.projection.weight" and value.shape[-2:] != own.shape[-2:]:
            return resample_patch_embed(value, list(own.shape[-2:]))
        if name == "pos_embed" and value.ndim == 4 and value.shape != own.shape:
            return resample_abs_pos_embed_nhwc(value, grid)
        if name == "pos_embed" and value.ndim == 3:
            prefix = own.shape[1] - grid[0] * grid[1]
            side = math.isqrt(max(value.shape[1] - prefix, 0))
            if side * side == value.shape[1] - prefix and [side, side] != grid:
                return resample_abs_pos_embed(value, grid, num_prefix_tokens=prefix)
        if name.endswith("relative_position_bias_table") and value.shape != own.shape:
            return resize_rel_pos_bias_table(value, tuple(grid), tuple(own.shape))
        if name.endswith(("rel_pos_h", "rel_pos_w")) and value.shape != own.shape:
            return resize_rel_pos(value, own.shape[0])
        return value

    def _prune(self, indices: list[int]) -> None:
        left = indices[-1] + 1
        if left < len(self.blocks):
            del self.vit.layers[left:]
            self.vit.num_layers = left
            if getattr(self.vit, "final_norm", False):
                self.vit.final_norm = False
                del self.vit.ln1
        self.vit.out_indices = indices

    def _layer_id(self, name: str) -> int:
        return self.vit.get_layer_depth(name)[0]

    def _features(self, x: Tensor) -> Sequence[Tensor]:
        return self.vit(x)


def _read(path: str | Path) -> dict[str, Tensor]:
    """Read a file that mmpretrain saved.

    Raises:
        ValueError: If it holds anything but tensors by their names.
    """
    found = checkpoint.read_file(path)
    if not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(
            f"{path} holds no state dict; pass a checkpoint that mmpretrain saved, or a state dict "
            "of its backbone"
        )
    return found


def _of_backbone(state_dict: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Take the backbone out of a whole model's state dict; a backbone's own is returned as it is.

    Raises:
        ValueError: If the model has a part that mmpretrain's pretraining does not save.
    """
    prefix = "backbone."
    if not any(name.startswith(prefix) for name in state_dict):
        return state_dict
    unknown = [n for n in state_dict if not n.startswith((prefix, *_OTHER_PARTS))]
    if unknown:
        raise ValueError(
            f"{source} has {len(unknown)} keys beside the backbone's that are not mmpretrain's "
            f"({', '.join(unknown[:5])}); save the backbone's state dict alone and pass that file"
        )
    return {n.removeprefix(prefix): v for n, v in state_dict.items() if n.startswith(prefix)}


def _expand_shared_bias(state_dict: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each block its copy of a relative position table that pretraining shared (BEiT)."""
    if _SHARED_BIAS not in state_dict or _SHARED_BIAS in own:
        return state_dict
    tables = [name for name in own if name.endswith("attn.relative_position_bias_table")]
    if not tables:
        return state_dict
    rest = {name: value for name, value in state_dict.items() if name != _SHARED_BIAS}
    return {**rest, **dict.fromkeys(tables, state_dict[_SHARED_BIAS])}

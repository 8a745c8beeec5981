"""Any plain ViT of timm as an mmseg backbone."""

from collections.abc import Sequence
from pathlib import Path

import timm
from mmseg.registry import MODELS
from torch import Tensor, nn

from . import checkpoint
from .plain_vit import PlainViT


@MODELS.register_module()
class TimmViT(PlainViT):
    """A plain vision transformer of timm.

    Pretrained patch embeddings are resized as in FlexiViT (pseudo-inverse resize, arXiv
    2212.08013) and position embeddings bicubically, both by timm and at load time; training then
    updates the resized ones.

    The arguments are those of :class:`PlainViT`. ``model_name`` has timm's pretrained tag where
    there are several (``'vit_base_patch14_dinov2.lvd142m'``); ``pretrained`` is True for timm's
    weights from the Hugging Face Hub, or a file in timm's or the authors' layout; all others go to
    ``timm.create_model`` (``depth``, ``drop_path_rate``, ...).
    """

    blocks_name = "blocks"

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

    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.vit.pretrained_cfg["mean"], self.vit.pretrained_cfg["std"]

    def _read(self, pretrained: bool | str | Path) -> tuple[dict[str, Tensor], str]:
        if pretrained is True:
            return checkpoint.read_hub(self.vit)
        return checkpoint.read_file(pretrained), str(pretrained)

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        return checkpoint.to_timm(state_dict, self.vit)

    def _prune(self, indices: list[int]) -> None:
        self._has_norm = indices[-1] == len(self.blocks) - 1 and not self._norm_is_head()
        self.vit.prune_intermediate_layers(indices, prune_norm=not self._has_norm, prune_head=True)

    def _norm_is_head(self) -> bool:
        """Whether what timm prunes as the final norm is not part of the dense features."""
        return False

    def _features(self, x: Tensor) -> Sequence[Tensor]:
        outs = self.vit.forward_intermediates(
            x, indices=self.out_indices, output_fmt="NCHW", intermediates_only=True
        )
        if self._has_norm:
            last = outs[-1].permute(0, 2, 3, 1)
            outs[-1] = self.vit.norm(last).permute(0, 3, 1, 2)
        return outs

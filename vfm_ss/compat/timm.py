"""What timm does with pretrained weights and has no public way for. Checked: timm 1.0.31."""

import contextlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import timm
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from timm.models import _builder, _hub, beit
from torch import Tensor, nn

#: Renames and resizes a published state dict for a model.
Filter = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]

_patching = threading.Lock()


def create_model(model_name: str, **kwargs) -> tuple[nn.Module, Filter]:
    """Build a timm model with random weights; return it and the filter of its pretrained ones.

    The filter is more than the module's ``checkpoint_filter_fn``: timm binds other ways of resizing
    to FlexiViT and C-RADIO, and DeiT III's names of layer scale. It is known only to
    ``build_model_with_cfg``, which hands it to ``load_pretrained``: that one is replaced while the
    model is built, for this thread, by a function that keeps the filter and loads nothing.

    Args:
        model_name: As of ``timm.create_model``.
        **kwargs: Likewise, without ``pretrained``.

    Raises:
        RuntimeError: If timm has no such model, or it is not built in timm's usual way.
    """
    found = []
    load_pretrained, owner = _builder.load_pretrained, threading.get_ident()

    def keep(*args, **options):
        if threading.get_ident() != owner:
            return load_pretrained(*args, **options)
        return found.append(options.get("filter_fn"))

    with _patching, patch.object(_builder, "load_pretrained", keep):
        model = timm.create_model(model_name, pretrained=True, **kwargs)
    if not found:
        raise RuntimeError("it is not built by timm's build_model_with_cfg")
    return model, found[0] or (lambda state_dict, model: state_dict)


def hub_file(model_id: str, filename: str) -> Path | None:
    """Return the file in the cache of the Hugging Face Hub that ``load_state_dict_from_hf`` read.

    Args:
        model_id: Of the repository, perhaps with ``@revision``.
        filename: As timm is asked for it; timm prefers a safetensors file beside another.
    """
    repository, revision = _hub.hf_split(model_id)
    whole = filename.endswith(".safetensors")
    for name in [*(() if whole else _hub._get_safe_alternatives(filename)), filename]:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):  # other answers say that it is not there
            return Path(found)
    return None


def apply_filter(
    filter_fn: Filter, state_dict: dict[str, Tensor], model: nn.Module
) -> dict[str, Tensor]:
    """Rename and resize a published state dict, without what timm prints for each absent bias."""
    with contextlib.redirect_stdout(io.StringIO()):
        return filter_fn(state_dict, model)


def stop_rope_augmentation(model: nn.Module) -> None:
    """Keep the coordinates of rotary embeddings as they are in training.

    timm shifts or rescales them at random where a model's ``rope_*_coords`` say so (Sapiens2), and
    drops ``rope_rescale_coords=None``.
    """
    for module in model.modules():
        if getattr(module, "aug_active", False):
            module.aug_active = False


class _OpenBeitAttention(beit.Attention):
    """BEiT's attention on more tokens than it has relative positions for, the others last."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        self.num_others = x.shape[1] - self.relative_position_index.shape[0]
        return super().forward(x, shared_rel_pos_bias)

    def _get_rel_pos_bias(self) -> Tensor:
        return F.pad(super()._get_rel_pos_bias(), (self.num_others, 0, self.num_others, 0))


def open_relative_positions(attention: nn.Module) -> None:
    """Let tokens without a position come before those of a BEiT's attention: their bias is 0.

    Any other attention stays as it is.
    """
    if isinstance(attention, beit.Attention) and attention.relative_position_bias_table is not None:
        attention.__class__ = _OpenBeitAttention

"""What every backbone here promises: a plain ViT, resized once to the task's image and patch size.

Shapes: B batch, C embedding width, H and W image size in pixels, P patch size in pixels.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_activations

from . import checkpoint
from .late_weights import LateWeights
from .lora import CallCheck, adapted_layers, add_lora, is_of_adapter, rename_base
from .open_blocks import OpenBlocks, number_of_open_blocks


class PlainViT(LateWeights):
    """A vision transformer of some library, as an mmseg backbone.

    A subclass says how its library builds a model, names weights and computes features, in the
    methods at the end.

    Args:
        model_name: The library's name of the model.
        patch_size: Patch size P in pixels.
        img_size: Input size in pixels, one number or (H, W), multiples of P.
        pretrained: True for published weights, False for random ones, or the path of a
            ``.safetensors`` or weights-only ``.pth`` file. See `late_weights` for when it is read.
        frozen: Keep the backbone in eval mode, without gradients or graph (linear probing).
        frozen_stages: Keep what is before the blocks, and the first ``frozen_stages`` blocks, in
            eval mode and without gradients, as in mmpretrain's ViT: 0 is the embedding of patches
            and positions alone, -1 nothing.
        lora: Train low-rank adapters instead of the weights, see :func:`lora.add_lora`:
            ``dict(r=8, target_modules=["qkv"])``; ``lora_alpha``, ``lora_dropout``, ... as in peft.
        out_indices: Blocks whose outputs are returned, negative ones counting from the last, in
            ascending order. The final norm belongs to the last block and is applied to its output
            only, as in mmseg's own ``VisionTransformer``.
        open_blocks: How many of the last blocks are left to the decode head, which runs them with
            its queries among the tokens (EoMT); ``'auto'`` is the published 3 of 12 and 4 of 24.
            The one output is then an :class:`OpenBlocks` instead of a map.
        with_cp: Gradient checkpointing: keep the inputs of the blocks only and compute the rest
            again in the backward pass. Less memory for about a third more time.
        compile: Compile the backbone in place with ``torch.compile``, whose options may be given
            as a dict. Names of weights and checkpoints stay the same. The authors found that EVA-02
            loses mIoU when compiled.
        mean: Mean of each RGB channel in [0, 1] that the weights were trained with, by default
            what the library says.
        std: Standard deviation of each RGB channel in [0, 1].
        **kwargs: What the library's model takes.

    Attributes:
        img_size: (H, W).
        patch_size: P.
        grid_size: (H/P, W/P).
        embed_dim: C.
        mean, std: As above, three numbers each.
        out_indices: Block numbers from 0.
        model_name: The library's name of the model, with a pretrained tag only where the weights
            of that tag were read.
        weights: What was read: ``'random'``, ``'a checkpoint'``, or the file or address;
            ``'unread'`` where that is still to come.
        weights_files: The files that were read, none where they are not known.
        vit: The library's model, without what the outputs do not need, so that every parameter
            has a gradient.

    Raises:
        ValueError: On sizes that do not fit, a model that is no plain ViT, or weights that do not
            match it.
        FileNotFoundError: If the weights cannot be found.
    """

    #: What the library calls the list of blocks.
    blocks_name: ClassVar[str]

    def __init__(
        self,
        model_name: str,
        patch_size: int = 16,
        img_size: int | Sequence[int] = 512,
        pretrained: bool | str | Path = True,
        frozen: bool = False,
        out_indices: int | Sequence[int] = -1,
        open_blocks: int | str = 0,
        with_cp: bool = False,
        compile: bool | dict = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        frozen_stages: int = -1,
        lora: dict | None = None,
        **kwargs,
    ):
        super().__init__()
        self.img_size = tuple(int(size) for size in to_2tuple(img_size))
        self.patch_size = int(patch_size)
        if self.patch_size < 1 or any(s < 1 or s % self.patch_size for s in self.img_size):
            raise ValueError(
                f"img_size {self.img_size} must be a multiple of patch_size {self.patch_size}"
            )
        self.grid_size = tuple(size // self.patch_size for size in self.img_size)
        self._build_again = partial(self._build, model_name, **kwargs)
        self.vit = self._build_again()
        self.weights, self.weights_files = "random", []
        self.model_name = self._full_name(model_name, published=pretrained is True)
        self._name_of_weights = "" if pretrained is True else "random"
        self.mean, self.std = (
            _channels(name, own if given is None else given)
            for name, given, own in zip(
                ("mean", "std"), (mean, std), self._statistics(), strict=True
            )
        )
        if not isinstance(pretrained, bool):
            self._name_of_weights = _stem(pretrained)
        self._pretrained, self._name = pretrained, model_name.partition(".")[0]
        self.out_indices = _block_numbers(out_indices, len(self.blocks))
        self.open_blocks = number_of_open_blocks(open_blocks, len(self.blocks), self.out_indices)
        if pretrained is not False:
            self.read_or_wait(is_file=not isinstance(pretrained, bool) and _is_there(pretrained))
        self._prune(self.out_indices)
        if self.open_blocks:
            self._check_open_blocks()
        self.embed_dim = self.vit.embed_dim
        self.frozen, self.frozen_stages = frozen, frozen_stages
        self.lora = None
        self._hold_still(lora)
        self.with_cp = with_cp
        closed = len(self.blocks) - self.open_blocks
        if with_cp:
            for block in self.blocks[:closed]:
                block.forward = partial(checkpoint_activations, block.forward, use_reentrant=False)
        if compile:
            for part in (self, *self.blocks[closed:]):
                part.compile(**({} if compile is True else compile))

    @property
    def key(self) -> str:
        """What records and tables call it: the model's name, and after an @ its weights.

        Published weights belong to the model's name. Others are called by their file, random ones
        ``random``.
        """
        return "@".join(filter(None, (self.model_name, self._name_of_weights)))

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks of ``vit``."""
        return getattr(self.vit, self.blocks_name)

    def read_weights(self, again: bool = False) -> None:
        """Read the pretrained weights.

        Args:
            again: Whether ``vit`` has been cut to what the outputs need and is in use, so that the
                weights are converted for a whole one, and copied.
        """
        vit = self.vit
        if again:
            self.vit = self._build_again()
        try:
            state_dict, source, files = self._read(self._pretrained)
            with checkpoint.converting(self.vit, state_dict, source, self._name):
                state_dict = self._convert(checkpoint.to_float32(state_dict))
            checkpoint.load_strict(self.vit, state_dict, source, self._name)
            if again:
                self._prune(self.out_indices)
                self._replace(vit, self.vit)
        finally:
            self.vit = vit
        self.weights, self.weights_files = source, files

    def _hold_still(self, lora: Mapping | None) -> None:
        """Freeze what is not to be trained, and add adapters.

        Raises:
            ValueError: If the options do not fit each other or the model.
        """
        depth = len(self.blocks)
        if not isinstance(self.frozen_stages, int) or not -1 <= self.frozen_stages < depth:
            raise ValueError(
                f"frozen_stages must be -1 (nothing) to {depth - 1} of the {depth} blocks, got "
                f"{self.frozen_stages!r}; frozen=True freezes all of the backbone"
            )
        stated = [self.frozen, self.frozen_stages >= 0, lora is not None]
        if sum(stated) > 1:
            raise ValueError(
                "frozen, frozen_stages and lora each say what is trained: give one of them "
                "(lora's layers_to_transform chooses blocks)"
            )
        if self.frozen:
            self.requires_grad_(False)
        for module in self._frozen_parts():
            module.requires_grad_(False)
        if self.frozen_stages >= 0:
            for parameter in self.vit.parameters(recurse=False):  # positions, tokens of their own
                parameter.requires_grad_(False)
        if lora is not None:
            add_lora(self.vit, lora)
            self.lora, self._calls = dict(lora), CallCheck(self.vit)
        self.train(self.training)

    def _frozen_parts(self) -> list[nn.Module]:
        """Return the modules that `frozen_stages` freezes: all but later blocks and final norm."""
        if self.frozen_stages < 0:
            return []
        behind = (self.blocks_name, *_FINAL_NORMS)
        before = [module for name, module in self.vit.named_children() if name not in behind]
        return [*before, *self.blocks[: self.frozen_stages]]

    def train(self, mode: bool = True) -> "PlainViT":
        """Set training mode; what is frozen stays in eval mode."""
        super().train(mode and not self.frozen)
        for module in self._frozen_parts():
            module.eval()
        return self

    def before_loading(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Take the weights of a model without adapters as those beside the adapters."""
        if self.lora is not None:
            rename_base(state_dict, [f"{prefix}vit.{n}" for n, _ in adapted_layers(self.vit)])
        super().before_loading(state_dict, prefix)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Return the layer of a parameter, for layer-wise decay of the learning rate.

        The layers are the library's own (timm's ``param_groups_layer_decay``, mmpretrain's
        ``get_layer_depth``) of the blocks that are left: 0 for all before the blocks, i + 1 for
        block i. timm counts the final norm to the last block, mmpretrain to what follows.

        Args:
            param_name: Name of a parameter of a model.
            prefix: What this backbone's names start with in it; any other name follows it.

        Returns:
            The number of the layer, and that of all layers: the blocks, what is before and what
            follows.
        """
        layers = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return layers - 1, layers
        return self._layer_id(param_name.removeprefix(prefix).removeprefix("vit.")), layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | tuple[OpenBlocks]:
        """Compute the features of normalised images.

        Args:
            x: (B, 3, H, W), normalised with ``mean`` and ``std``.

        Returns:
            One (B, C, H/P, W/P) map for each of ``out_indices``; with ``open_blocks``, one
            :class:`OpenBlocks`.

        Raises:
            ValueError: If H and W are not ``img_size``.
        """
        if tuple(x.shape[-2:]) != self.img_size:
            raise ValueError(
                f"got an image of {tuple(x.shape[-2:])} pixels, but the backbone was built for "
                f"img_size={self.img_size}; build it for this size, or test with mode='slide' and "
                f"crop_size={self.img_size}"
            )
        if self.lora is not None and self._calls and self.training and self._calls.before_pass():
            self._calls = None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.open_blocks:
                return (OpenBlocks(self, *self._open(x)),)
            return tuple(self._features(x))

    def run_open_block(
        self, index: int, tokens: Tensor, num_queries: int, visible: Tensor | None, positions: Any
    ) -> Tensor:
        """Run block ``index`` with queries before its tokens; see ``OpenBlocks.run``."""
        raise NotImplementedError

    def final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the final norm, where there is one, to (B, T, C)."""
        raise NotImplementedError

    def _check_open_blocks(self) -> None:
        """Raise a ValueError where the last blocks cannot be left to the head."""
        raise ValueError(
            f"open_blocks (for EoMT) is not implemented for {type(self).__name__}; use a VFM or "
            "TimmViT, or another decode head"
        )

    def _open(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the tokens (B, n + N, C) before the open blocks, and what these need beside."""
        raise NotImplementedError

    @abstractmethod
    def _build(self, model_name: str, **kwargs) -> nn.Module:
        """Return the library's model for ``img_size`` and ``patch_size``, with ``embed_dim``."""

    def _full_name(self, model_name: str, published: bool) -> str:
        """Return the library's name of the model, and of the weights that it publishes for it."""
        return model_name

    @abstractmethod
    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return the mean and std that the library knows."""

    @abstractmethod
    def _read(self, pretrained: bool | str | Path) -> tuple[dict[str, Tensor], str, list[Path]]:
        """Read published weights (True) or a file; return them, a name for messages, the files."""

    @abstractmethod
    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn a published state dict into that of ``vit``, renamed and resized."""

    def _replace(self, vit: nn.Module, by: nn.Module) -> None:
        """Copy all weights of one model to another one of the same structure, in place.

        One with adapters gets what is beside them.
        """
        state_dict = by.state_dict()
        rename_base(state_dict, [name for name, _ in adapted_layers(vit)])
        state_dict |= {n: value for n, value in vit.state_dict().items() if is_of_adapter(n)}
        vit.load_state_dict(state_dict)

    @abstractmethod
    def _prune(self, indices: list[int]) -> None:
        """Remove what the outputs of these blocks do not need."""

    @abstractmethod
    def _layer_id(self, name: str) -> int:
        """Return the layer of a parameter of ``vit``; see ``get_layer_depth``."""

    @abstractmethod
    def _features(self, x: Tensor) -> Sequence[Tensor]:
        """Return the map of each block of ``out_indices``, the final norm on the last block's."""


#: Names of what follows the blocks, in timm and in mmpretrain.
_FINAL_NORMS = ("norm", "fc_norm", "head", "neck", "ln1", "ln2", "final_norm")


def _is_there(path: str | Path) -> bool:
    return Path(path).expanduser().exists()


def _stem(path: str | Path) -> str:
    """Return the name of a file or folder, without what only says its format."""
    return re.sub(r"(\.index\.json|\.safetensors|\.pth|\.pt|\.bin)+$", "", Path(path).name)


def _channels(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Check the mean or std of RGB channels."""
    values = tuple(values)
    if len(values) != 3 or not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"{name} must be three numbers in [0, 1], one for each RGB channel, got {values}; "
            "divide those of images in 0..255 by 255"
        )
    return values


def _block_numbers(out_indices: int | Sequence[int], depth: int) -> list[int]:
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

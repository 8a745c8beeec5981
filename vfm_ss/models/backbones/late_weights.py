"""When pretrained weights are read: not where the weights of a checkpoint take their place.

A backbone that is built by itself has them when it is built. In a segmentor they are read as
mmengine means it, by ``init_weights``, which its runner calls when training begins; else before the
first features are computed. A checkpoint that holds all of the backbone takes their place, whoever
loads it: then no file is looked for and nothing is downloaded.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from vfm_ss.compat.torch_modules import LoadingModule

from .lora import is_of_adapter

#: Read when a backbone is built; the same if it is a file on this machine; not before it is needed.
NOW, IF_THERE, LATER = "now", "if there", "later"

_when: ContextVar[str | None] = ContextVar("when pretrained weights are read", default=None)


@contextmanager
def reading(when: str) -> Iterator[None]:
    """Say when the backbones built in this block read their weights; the outermost block decides.

    Args:
        when: ``NOW``, ``IF_THERE`` or ``LATER``.
    """
    token = _when.set(_when.get() or when)
    try:
        yield
    finally:
        _when.reset(token)


def expect_checkpoint(model: nn.Module, expected: bool = True) -> None:
    """Let ``init_weights`` and ``state_dict`` read no pretrained weights for a while.

    Args:
        model: A model in which there may be backbones of this package.
        expected: Whether a checkpoint is about to be loaded.
    """
    for module in model.modules():
        if isinstance(module, LateWeights):
            module.checkpoint_follows = expected


def fit_structure(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Give backbones without weights the structure of a checkpoint; see `LateWeights.fit`.

    Args:
        model: A model in which there may be backbones of this package.
        state_dict: Its weights, by their names in the model.
    """
    for name, module in model.named_modules():
        if isinstance(module, LateWeights) and module.unread:
            module.fit(_below(state_dict, f"{name}." if name else ""))


def names_of(model: nn.Module) -> set[str]:
    """Return the names of what a model's checkpoint holds; no pretrained weights are read for it.

    Args:
        model: A model in which there may be backbones of this package.
    """
    asking = [m for m in model.modules() if isinstance(m, LateWeights) and not m.checkpoint_follows]
    try:
        for module in asking:
            module.checkpoint_follows = True
        return set(model.state_dict())
    finally:
        for module in asking:
            module.checkpoint_follows = False


class LateWeights(LoadingModule, BaseModule):
    """A backbone whose pretrained weights may be read after it is built.

    Attributes:
        unread: Whether its weights are random ones, which pretrained ones are still to replace.
        checkpoint_follows: See `expect_checkpoint`.
    """

    unread = False
    checkpoint_follows = False

    def read_or_wait(self, is_file: bool) -> None:
        """Read pretrained weights, or be ready to read them when they are needed.

        Args:
            is_file: Whether they are a file on this machine.
        """
        when = _when.get() or NOW
        if when == NOW:
            self.read_weights()
        elif when == IF_THERE and is_file:
            try:
                self.read_weights()
            except (OSError, ValueError):  # asked for again where no checkpoint brings them
                self.wait()
        else:
            self.wait()

    def wait(self) -> None:
        """Read the weights before anything is computed with random ones."""
        self.unread, self.weights = True, "unread"
        self._guard = self.vit.patch_embed.register_forward_pre_hook(self._before_features)

    def read_now(self) -> None:
        """Read pretrained weights, unless that has been done or a checkpoint has replaced them.

        Raises:
            ValueError: If they do not fit.
            FileNotFoundError: If they cannot be found.
        """
        if self.unread:
            # A whole model is built for it, on the CPU, whose random numbers must not be missed.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                self.read_weights(again=True)
            self._stop_waiting()

    def init_weights(self) -> None:
        """Read pretrained weights that have not been read; change nothing else.

        mmengine would otherwise call the ``init_weights`` of the library's module, which overwrites
        pretrained weights with random ones.
        """
        if not self.checkpoint_follows:
            self.read_now()

    def __call__(self, *args, **kwargs):
        """Compute features, see ``forward``, of the right weights."""
        self.read_now()
        return super().__call__(*args, **kwargs)

    def state_dict(self, *args, **kwargs) -> dict:
        """Return the weights, see torch; pretrained ones, if they are to be read, not random."""
        if not self.checkpoint_follows:
            self.read_now()
        return super().state_dict(*args, **kwargs)

    def before_loading(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Take a whole checkpoint in place of pretrained weights; one in parts replaces some."""
        if not self.unread:
            return
        given = _below(state_dict, prefix)
        self.fit(given)
        # Adapters begin without effect: a checkpoint without them is whole, too.
        wanted = {name: p for name, p in self.named_parameters() if not is_of_adapter(name)}
        if all(name in given and given[name].shape == p.shape for name, p in wanted.items()):
            self.weights, self.weights_files = "a checkpoint", []
            self._stop_waiting()
        else:
            self.read_now()

    def fit(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the structure of a checkpoint, where reading pretrained weights may change it.

        Args:
            state_dict: The weights of this backbone alone.
        """

    def _before_features(self, module: nn.Module, inputs: tuple) -> None:
        self.read_now()

    def _stop_waiting(self) -> None:
        self.unread = False
        self._guard.remove()
        del self._guard


def _below(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}

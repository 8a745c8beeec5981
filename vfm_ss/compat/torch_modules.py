"""What torch keeps private. Checked with torch 2.4 to 2.12."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module, or one below it, has been compiled in place."""
    return any(part._compiled_call_impl is not None for part in module.modules())


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises over the images of a batch, in any number of dimensions.

    ``nn.BatchNorm1d`` to 3d and ``nn.SyncBatchNorm`` have no public base.
    """
    return isinstance(module, _BatchNorm)


class LoadingModule(nn.Module):
    """A module that is told of weights before they are loaded into it, by torch or by mmengine."""

    def before_loading(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Look at weights that are loaded into this module next.

        Args:
            state_dict: Weights of a model by their names in it.
            prefix: What those of this module start with.
        """

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self.before_loading(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

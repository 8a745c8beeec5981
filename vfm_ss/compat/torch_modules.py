"""What torch keeps private. Checked with torch 2.4 to 2.12."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module, or one below it, has been compiled in place."""
    return any(part._compiled_call_impl is not None for part in module.modules())


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises over the images of a batch, in any number of dimensions.

    ``nn.BatchNorm1d`` to 3d and ``nn.SyncBatchNorm`` have no public base.
    """
    return isinstance(module, _BatchNorm)

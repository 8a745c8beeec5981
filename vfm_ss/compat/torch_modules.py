"""What torch keeps private. Checked with torch 2.4 to 2.12."""

from torch import nn


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module, or one below it, has been compiled in place."""
    return any(part._compiled_call_impl is not None for part in module.modules())

"""Benchmark vision foundation models for semantic segmentation on MMSegmentation.

A config needs no more than ``custom_imports = dict(imports=['vfm_ss'])``: with this package, mmseg
gets its modules, whichever of the two is imported first. Without mmseg it stays light: what ranks,
reports and sweeps imports neither torch nor mmengine.
"""

from .compat.import_hooks import around_import
from .version import __version__

__all__ = ["__version__"]


# What follows is imported when it is needed: a command starts, and minds Ctrl-C, at once.


def _check() -> None:
    from .compat import stack

    stack.check()


def _name_packages() -> None:
    from .compat import stack

    stack.name_packages()


def _register() -> None:
    from .compat import stack

    stack.import_quietly("mmseg.datasets", "mmseg.models")
    import vfm_ss.datasets
    import vfm_ss.engine
    import vfm_ss.evaluation
    import vfm_ss.models
    import vfm_ss.registry
    from vfm_ss.engine import checkpoint_io

    checkpoint_io.register()


around_import("mmengine", before=_check, after=_name_packages)
around_import("mmseg", after=_register)

"""Benchmark vision foundation models for semantic segmentation on MMSegmentation.

A config needs no more than ``custom_imports = dict(imports=['vfm_ss'])``: with this package, mmseg
gets its modules, whichever of the two is imported first. Without mmseg it stays light: what ranks,
reports and sweeps imports neither torch nor mmengine.
"""

from .compat import stack
from .compat.import_hooks import around_import
from .version import __version__

__all__ = ["__version__"]


def _register() -> None:
    stack.import_quietly("mmseg.datasets", "mmseg.models")
    import vfm_ss.datasets
    import vfm_ss.engine
    import vfm_ss.evaluation
    import vfm_ss.models
    import vfm_ss.registry
    from vfm_ss.engine import checkpoint_io

    checkpoint_io.register()


around_import("mmengine", before=stack.check, after=stack.name_packages)
around_import("mmseg", after=_register)

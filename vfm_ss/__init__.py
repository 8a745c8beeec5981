"""Benchmark vision foundation models for semantic segmentation on MMSegmentation.

Importing this package registers its modules with mmseg, so a config needs no more than
``custom_imports = dict(imports=['vfm_ss'])``. Set ``VFM_SS_REGISTER=0`` to import the parts that
work without torch (``vfm_ss.protocol.vfms``, ranking, report and sweeps) alone.
"""

import os

from .version import __version__

if os.environ.get("VFM_SS_REGISTER", "1") != "0":
    from . import stack

    stack.check()
    stack.prepare()
    from . import datasets, engine, evaluation, models, registry
    from .engine import checkpoint_io

    checkpoint_io.register()

__all__ = ["__version__"]

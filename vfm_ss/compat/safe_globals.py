"""What checkpoints hold beside tensors and plain Python: mmengine's log history, parsed arguments.

PyTorch's weights-only reader does not know these classes. Making one of them runs no code. Checked
with mmengine 0.10.7 and onedl-mmengine 0.10.12, numpy 1.26 to 2.4, torch 2.4 to 2.12. The private
names are numpy's, by which every pickled array and number is made; ``numpy.core`` was renamed in
numpy 2.
"""

import argparse
import pickle

import numpy as np
from mmengine.logging import HistoryBuffer

_core = getattr(np, "_core", None) or np.core


def _statistic(owner: type, name: str):
    """Stand in for ``getattr``, by which a pickled log history names its statistics."""
    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"a checkpoint may not look up {name!r} of {owner!r}")
    return vars(HistoryBuffer)[name]


SAFE_GLOBALS = [
    HistoryBuffer,
    (_statistic, "builtins.getattr"),
    argparse.Namespace,  # ``args`` of timm's, DeiT's and MAE's training scripts
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
    (_core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (_core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (_core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    (_core.multiarray.scalar, "numpy.core.multiarray.scalar"),
]

SAFE_NAMES = {
    entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
    for entry in SAFE_GLOBALS
}

"""Read mmengine's checkpoints (``load_from``, ``--resume``, tools/test.py) as data."""

import os.path as osp
import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

# What mmengine's own checkpoints hold beside tensors and plain Python: the log history.
_SAFE_GLOBALS = [
    HistoryBuffer,
    HistoryBuffer.min,
    HistoryBuffer.max,
    HistoryBuffer.current,
    HistoryBuffer.mean,
    np.ndarray,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    np.dtypes.Float32DType,
    np._core.multiarray._reconstruct if hasattr(np, "_core") else np.core.multiarray._reconstruct,
    np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar,
]


def load_local(filename: str, map_location=None) -> dict:
    """Load a checkpoint file without running anything it holds.

    Args:
        filename: Path of a checkpoint.
        map_location: See ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or holds pickled objects other than weights and logs.
    """
    filename = osp.expanduser(filename)
    if not osp.isfile(filename):
        raise FileNotFoundError(f"checkpoint {filename} does not exist")
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(filename, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        found = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
        raise ValueError(f"checkpoint {filename} is refused: {found or reason}") from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("meta"), dict):
        # mmengine's `resume` parses this text as a Python config, that is, executes it.
        checkpoint["meta"].pop("config", None)
    return checkpoint


def register() -> None:
    """Make this the way in which mmengine loads local checkpoints."""
    CheckpointLoader.register_scheme(prefixes="", loader=load_local, force=True)

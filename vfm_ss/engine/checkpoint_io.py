"""mmengine's checkpoints (``load_from``, ``--resume``, tools/test.py): data, and never in parts."""

import os.path as osp
import pickle
import re
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from vfm_ss.files import damaged, refused, write_atomically

_np_core = getattr(np, "_core", None) or np.core  # renamed in numpy 2


def _history_statistic(owner: type, name: str):
    """Stand in for ``getattr``, by which a pickled log history names its statistics."""
    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"a checkpoint may not look up {name!r} of {owner!r}")
    return vars(HistoryBuffer)[name]


# What mmengine's own checkpoints hold beside tensors and plain Python: the log history.
_SAFE_GLOBALS = [
    HistoryBuffer,
    (_history_statistic, "builtins.getattr"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
    (_np_core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (_np_core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (_np_core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    (_np_core.multiarray.scalar, "numpy.core.multiarray.scalar"),
]


_REMEDY = "it is incomplete or no checkpoint, use another one"


def load_from_local(filename: str, map_location=None) -> dict:
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
    damage = find_damage(filename)
    if damage:
        raise ValueError(damaged(filename, damage, _REMEDY))
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            loaded = torch.load(filename, map_location=map_location, weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(_refusal(filename, error)) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("meta"), dict):
        # mmengine's `resume` parses this text as a Python config, that is, executes it.
        loaded["meta"].pop("config", None)
    return loaded


def _refusal(filename: str, error: Exception) -> str:
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
    except Exception:  # not a checkpoint at all
        found = []
    allowed = {entry[1] if isinstance(entry, tuple) else _path(entry) for entry in _SAFE_GLOBALS}
    unsafe = [name for name in found if name not in allowed]
    return refused(filename, ", ".join(unsafe)) if unsafe else damaged(filename, error, _REMEDY)


def _path(entry) -> str:
    return f"{entry.__module__}.{entry.__qualname__}"


def load_from_http(
    filename: str, map_location=None, model_dir: str | None = None, progress: bool = False
) -> dict:
    """Download a checkpoint once, to where torch keeps them, and load it as a local one.

    Args:
        filename: Its URL.
        map_location: See ``torch.load``.
        model_dir: Folder to keep it in instead.
        progress: Whether to show a bar.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir()) / "checkpoints")
    path = folder / Path(urlparse(filename).path).name
    if get_local_rank() == 0 and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=progress)
    barrier()
    return load_from_local(str(path), map_location)


def _refuse_remote(filename: str, map_location=None) -> dict:
    raise ValueError(f"{filename} is not loaded from there: download it and pass the file")


def find_damage(filename: str | Path) -> str | None:
    """Check the stored checksums of a checkpoint, which torch does not when it reads tensors.

    Returns:
        What is wrong; None for a sound file, or one in torch's old format, which has no checksums.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(filename, "rb") as file:
        start = file.read(2)
        if not start:
            return "the file is empty"
        if start != b"PK":
            return None
        try:
            broken = zipfile.ZipFile(file).testzip()
        except Exception as error:  # of many kinds, where the table of contents is broken
            return f"the file is incomplete: {error}"
    return f"wrong checksum of its part {broken}" if broken else None


def find_checkpoints(folder: str | Path, template: str = "iter_{}.pth") -> list[Path]:
    """Return the checkpoints of a run, the newest first.

    Args:
        folder: Where they are.
        template: Their file names, with the number of steps in place of ``{}``.
    """
    pattern = re.compile(re.escape(template).replace(re.escape("{}"), r"(\d+)"))
    found = [(pattern.fullmatch(path.name), path) for path in Path(folder).glob("*")]
    steps = [(int(match[1]), path) for match, path in found if match]
    return [path for _, path in sorted(steps, reverse=True)]


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, which replaces a file as a whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; its folder is made if there is none."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)


def register() -> None:
    """Make mmengine load checkpoints in this way; offer the atomic backend to its hooks.

    Its own way falls back to executing what it cannot read as data, in some releases.
    """
    schemes = {
        "": load_from_local,
        "http://": load_from_http,
        "https://": load_from_http,
        **dict.fromkeys(("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"), _refuse_remote),
    }
    for prefix, loader in schemes.items():
        CheckpointLoader.register_scheme(prefixes=prefix, loader=loader, force=True)
    # The other schemes are names of URLs.
    checkpoint.load_from_http = load_from_http
    register_backend("atomic", AtomicBackend, force=True)

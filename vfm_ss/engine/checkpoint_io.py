"""mmengine's checkpoints (``load_from``, ``--resume``, tools/test.py): data, and never in parts."""

import json
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.fileio import LocalBackend, register_backend
from torch import Tensor

from vfm_ss.checkpoint_reader import read, safetensors_facts
from vfm_ss.compat.checkpoint_loading import use_loaders
from vfm_ss.files import damaged, write_atomically

#: What a published safetensors file calls the ``meta`` of its checkpoint, as JSON.
PUBLISHED = "vfm_ss.meta"


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a checkpoint file without running anything it holds.

    Args:
        filename: Path of a checkpoint.
        map_location: See ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or holds pickled objects other than weights and logs.
    """
    loaded = read(filename, map_location)
    facts = safetensors_facts(filename)
    if PUBLISHED in facts:
        loaded = {"meta": _meta(filename, facts), "state_dict": loaded}
    if isinstance(loaded, dict):
        hub = loaded.get("message_hub")
        # mmengine's `resume`, and an inferencer without a config, parse the text that is there as a
        # Python config, that is, execute it.
        for place in (loaded.get("meta"), hub.get("runtime_info") if _is_dict(hub) else None):
            for name in ("config", "cfg") if _is_dict(place) else ():
                place.pop(name, None)
    return loaded


def _meta(filename: str, facts: dict[str, str]) -> dict:
    """Return the ``meta`` of a published file.

    Raises:
        ValueError: If it is none.
    """
    try:
        meta = json.loads(facts[PUBLISHED])
    except ValueError:
        meta = None
    if not isinstance(meta, dict) or not isinstance(meta.get("dataset_meta", {}), dict):
        raise ValueError(damaged(filename, f"its {PUBLISHED} is damaged", "publish it again"))
    return meta


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


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
    """Make mmengine load checkpoints in this way; offer the atomic backend to its hooks."""
    use_loaders(load_from_local, load_from_http, _refuse_remote)
    register_backend("atomic", AtomicBackend, force=True)


def weights_of(loaded: dict) -> dict[str, Tensor]:
    """Return the weights of a checkpoint by their names in the model."""
    return {
        name.removeprefix("module."): value
        for name, value in loaded.get("state_dict", loaded).items()
        if isinstance(value, Tensor)
    }

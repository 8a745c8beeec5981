"""Which files hold pretrained weights: one, a folder of the Hugging Face Hub, or several pieces.

Standard library only; the weights themselves are read by `vfm_ss.models.backbones.checkpoint`.
"""

from pathlib import Path

from vfm_ss.files import damaged
from vfm_ss.found_files import read_json

REMEDY = "download it again, or pass a .safetensors or .pth file that holds a state dict"

# What a folder of the Hugging Face Hub calls its weights, the first that is there counts.
_HUB_FILES = ("model.safetensors.index.json", "model.safetensors")
_HUB_FILES += ("pytorch_model.bin.index.json", "pytorch_model.bin")

_OF_IMAGES = ("vision_config", "backbone_config")


def files_of(path: str | Path) -> list[Path]:
    """Return the files that are read for a path, see `checkpoint.read_file`."""
    path = Path(path).expanduser()
    path = file_in(path) if path.is_dir() else path
    pieces = pieces_of(path).values() if path.name.endswith(".index.json") else ()
    return [path, *(path.with_name(name) for name in dict.fromkeys(pieces))]


def config_beside(path: str | Path) -> dict:
    """Return the ``config.json`` of transformers' in a folder of the Hugging Face Hub.

    Args:
        path: See `checkpoint.read_file`.

    Returns:
        The part of it that is about the image model; empty if there is none.
    """
    path = Path(path).expanduser()
    folder = path.parent if path.name in _HUB_FILES else path
    if not (folder / "config.json").is_file():
        return {}
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        return {}
    return next((c for c in map(config.get, _OF_IMAGES) if isinstance(c, dict)), config)


def file_in(folder: Path) -> Path:
    """Return the weights in a folder of the Hugging Face Hub."""
    found = next((folder / name for name in _HUB_FILES if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no weights: expected one of {', '.join(_HUB_FILES)}; give the path of "
            "the file itself if it is called otherwise"
        )
    return found


def pieces_of(index: Path) -> dict[str, str]:
    """Return the file of every weight, as the index of a checkpoint names it."""
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in files.values()
    ):
        raise ValueError(damaged(index, "it has no weight_map of files next to it", REMEDY))
    return files

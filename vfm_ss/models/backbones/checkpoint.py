"""Read pretrained weights, from a file or the Hugging Face Hub, and fit them to a timm ViT.

Everything read here is data, see `vfm_ss.checkpoint_reader`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import timm.models
import torch
from mmengine.logging import print_log
from torch import nn

from vfm_ss import checkpoint_reader
from vfm_ss.compat.timm import hub_file
from vfm_ss.files import damaged
from vfm_ss.protocol.weight_files import REMEDY, file_in, pieces_of

# Parts of published checkpoints that a dense backbone drops on purpose, whatever their layout:
# classifier and projection heads, and what only pretraining uses (mask tokens, the MAE decoder,
# the token predictors of EVA-02 and BEiT-3, the pool of SigLIP, the neck of SAM, the norm of pooled
# tokens).
_DROPPED = ("head.", "head_dist.", "mask_token", "decoder_", "attn_pool.", "lm_head.")
_DROPPED += ("mlm_head.", "mim_head.", "neck.", "fc_norm.")
# What training scripts call the weights that they save beside other things, timm's order.
_WRAPPING = ("state_dict_ema", "model_ema", "state_dict", "model")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_hub(vit: nn.Module) -> tuple[dict[str, torch.Tensor], str, list[Path]]:
    """Read the weights that timm publishes for ``vit``.

    Returns:
        The state dict as published, a name of its source for messages, and the file in the cache;
        no file where it cannot be told.

    Raises:
        ValueError: If timm publishes no weights for this model.
        FileNotFoundError: If they can be neither downloaded nor found in the cache.
    """
    cfg, name = vit.pretrained_cfg, published_name(vit)
    hub_id = cfg.get("hf_hub_id")
    if not hub_id:
        raise ValueError(
            f"timm publishes no weights for {name}; pass pretrained='/path/to/weights.safetensors' "
            "or pretrained=False for random ones"
        )
    filename = cfg.get("hf_hub_filename") or "model.safetensors"
    source = f"{filename} of https://huggingface.co/{hub_id}"
    try:
        state_dict = timm.models.load_state_dict_from_hf(hub_id, filename, weights_only=True)
    except Exception as error:  # no network, a proxy, a full disk: the remedy is the same
        raise FileNotFoundError(
            f"cannot get the pretrained weights of {name}: {source} ({type(error).__name__}). "
            f"Download that file and pass pretrained='/path/to/{filename}' (on the command line: "
            f"--cfg-options model.backbone.pretrained=/path/to/{filename}), "
            "or pass pretrained=False for random weights"
        ) from error
    found = hub_file(hub_id, filename)
    return state_dict, source, [found] if found else []


def published_name(vit: nn.Module) -> str:
    """Return timm's name of a model with the tag of the weights that it publishes for it."""
    cfg = vit.pretrained_cfg
    return f"{cfg['architecture']}.{cfg['tag']}" if cfg.get("tag") else cfg["architecture"]


def read_file(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a local ``.safetensors`` or weights-only ``.pth`` checkpoint.

    Args:
        path: File in the layout that the VFM's authors, timm or transformers publish, the index of
            one in several pieces (``model.safetensors.index.json``), or a folder as
            ``huggingface_hub`` downloads it. ``~`` is expanded.

    Returns:
        The state dict as published; wrapping dicts (``model``, ``state_dict``) are removed. Of a
        model and its average in training the average is taken, as timm does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds anything but weights.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = file_in(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained weights {path} do not exist; give the path of a .safetensors or .pth "
            "file, True to download them, or False for random weights"
        )
    if path.name.endswith(".index.json"):
        return _read_pieces(path)
    code = "pickled objects other than tensors ({})"
    state_dict = checkpoint_reader.read(path, remedy=REMEDY, code=code)
    if isinstance(state_dict, dict):
        state_dict = _unpacked(state_dict, path)
    if not isinstance(state_dict, dict) or not all(isinstance(key, str) for key in state_dict):
        reason = f"it holds no state dict: {type(state_dict).__name__}"
        raise ValueError(damaged(path, reason, REMEDY))
    return timm.models.clean_state_dict(state_dict)


def _unpacked(loaded: dict, path: Path) -> dict:
    """Take the weights out of what a training script saves beside them."""
    found = [key for key in _WRAPPING if isinstance(loaded.get(key), dict)]
    if found:
        if found[0].endswith("_ema") and len(found) > 1:
            print_log(f"{path}: took {found[0]}, left out {', '.join(found[1:])}", "current")
        return loaded[found[0]]
    networks = [key for key in ("teacher", "student") if isinstance(loaded.get(key), dict)]
    if networks:  # each a dict of its own, by DINO and its successors
        return {f"{key}.{name}": value for key in networks for name, value in loaded[key].items()}
    return loaded


def _read_pieces(index: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint in several files, each weight from the file that the index names."""
    files, merged = pieces_of(index), {}
    for file in dict.fromkeys(files.values()):
        piece = read_file(index.with_name(file))
        promised = {name for name, where in files.items() if where == file}
        if promised != set(piece):
            name = sorted(promised ^ set(piece))[0]
            reason = f"it {'lacks' if name in promised else 'holds'} {name}, against {index.name}"
            raise ValueError(damaged(index.with_name(file), reason, REMEDY))
        merged |= piece
    return merged


def to_float32(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Widen half precision, so that resizing does not round to it again."""
    half = (torch.float16, torch.bfloat16)
    return {k: v.float() if getattr(v, "dtype", None) in half else v for k, v in state_dict.items()}


@contextlib.contextmanager
def converting(
    vit: nn.Module, state_dict: dict[str, torch.Tensor], source: str, name: str
) -> Iterator[None]:
    """Name the file where its weights cannot be renamed and resized; see ``load_strict``."""
    try:
        yield
    except Exception as error:  # a library's filter fails on other files in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(
            f"{source} does not fit {name}, check arch and the file. Its weights cannot be "
            f"converted ({reason}){_prefix(state_dict, vit.state_dict())}"
        ) from error


def load_strict(
    vit: nn.Module, state_dict: dict[str, torch.Tensor], source: str, name: str
) -> None:
    """Load ``state_dict`` into ``vit``; every key must match, save those dropped on purpose.

    Args:
        vit: The model.
        state_dict: Its weights, renamed and resized.
        source: Where they come from, for the message.
        name: How the message calls the model.

    Raises:
        ValueError: Names the source, and how many keys are missing, left over, of another shape, or
            quantised: their scales would be lost.
    """
    state_dict = {k: v for k, v in state_dict.items() if not str(k).startswith(_DROPPED)}
    expected = {k: v for k, v in vit.state_dict().items() if not k.startswith(_DROPPED)}
    problems = {
        "missing": [k for k in expected if k not in state_dict],
        "unexpected": [k for k in state_dict if k not in expected],
        "of another shape": [
            f"{k} {_shape(state_dict[k])} instead of {_shape(v)}"
            for k, v in expected.items()
            if k in state_dict and _shape(state_dict[k]) != _shape(v)
        ],
        "of numbers that are no weights": [
            f"{k} {state_dict[k].dtype}"
            for k, v in expected.items()
            if v.is_floating_point() and getattr(state_dict.get(k), "dtype", v.dtype) not in _FLOATS
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(v)} {k}: {_some(v)}" for k, v in problems.items() if v)
        prefix = _prefix(problems["unexpected"], expected)
        raise ValueError(
            f"{source} does not fit {name}, check arch and the file. Keys {found}{prefix}"
        )
    vit.load_state_dict(state_dict, strict=False)


def _shape(value: object) -> object:
    """Return the shape of a tensor as others have it, and what anything else is."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape) if value.layout == torch.strided else str(value.layout)
    return type(value).__name__


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more


def _prefix(found: Iterable[str], expected: Iterable[str]) -> str:
    """Name what stands before most of the expected names in a file, if anything does."""
    expected = set(expected)
    found = [str(name).split(".") for name in found if name not in expected]
    prefixes = Counter(
        ".".join(parts[:i])
        for parts in found
        for i in range(1, len(parts))
        if ".".join(parts[i:]) in expected
    )
    prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
    if 2 * count < len(expected):
        return ""
    which = "All" if count == len(found) else f"{count} of {len(found)}"
    return f". {which} unknown keys of the file start with '{prefix}.': save them without it"

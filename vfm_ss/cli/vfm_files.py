"""VFMs that the table lacks: those of a file, and timm's by name. Runs in `data_files`' process."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from vfm_ss.cli.plain_data import check_name, imported_config, literal
from vfm_ss.errors import UsageError
from vfm_ss.protocol.settings import ConfigName
from vfm_ss.protocol.vfms import SIZES, VFMS

#: Arguments of a backbone that are factors of a sweep, or follow from its data.
_FACTORS = {"patch_size": "--patches", "frozen": "--decoders", "img_size": "--data"}


def check_timm(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UsageError: With near names.
    """
    import timm

    if name in timm.list_models() or name in timm.list_pretrained():
        return
    near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()])
    hint = f"; near are {', '.join(near)}" if near else ""
    raise UsageError(f"timm:{name}: timm {timm.__version__} has no such model{hint}")


def read_vfm(file: str) -> dict:
    """Read a VFM file: a config with a ``backbone``, and its ``size`` where that does not say it.

    Args:
        file: The file; its stem is the VFM's name in configs, records and rankings.

    Returns:
        The fields of a `sweep.cells.Model`.

    Raises:
        ValueError: If it cannot be used.
    """
    cfg = imported_config(file)
    backbone = cfg.get("backbone")
    if not isinstance(backbone, Mapping) or "type" not in backbone:
        raise ValueError("it has no backbone of a type")
    backbone = literal("backbone", backbone)
    for name, factor in _FACTORS.items():
        if name in backbone:
            raise ValueError(f"backbone.{name} is stated in it; give {factor} instead")
    _check_type(backbone["type"])
    weights = backbone.get("pretrained", True)
    local = isinstance(weights, str) and "://" not in weights
    if local and not Path(weights).expanduser().exists():
        raise ValueError(
            f"backbone.pretrained is {weights!r}, which does not exist; paths are relative to the "
            "folder in which the sweep runs"
        )
    letters = {arch: letter for letter, arch in SIZES.items()}
    size = cfg.get("size") or letters.get(backbone.get("arch"))
    if not (isinstance(size, str) and len(size) == 1 and size.isalpha() and size.islower()):
        raise ValueError(f"size is {size!r}; state size='s', 'b', 'l' or another letter")
    key = Path(file).stem
    if key in VFMS:
        raise ValueError(f"a VFM of the table is called {key!r}, too; rename the file")
    check_name("file", key, ConfigName(key, size, 16, "linear", "ade20k"))
    text = [f"{name}={value!r}" for name, value in backbone.items()]
    return {"key": key, "size": size, "backbone": text, "file": file}


def _check_type(name: str) -> None:
    from mmseg.registry import MODELS

    import vfm_ss.models  # noqa: F401  registers them

    if MODELS.get(name) is None:
        raise ValueError(
            f"no backbone is registered as {name!r}; name its module in custom_imports"
        )

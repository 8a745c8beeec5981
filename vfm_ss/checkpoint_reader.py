"""The one reader of checkpoints: pretrained weights, ``load_from``, ``--resume``.

A checkpoint is data. Nothing in it is executed, nothing is read in parts, and no memory is taken
that the file does not account for:

- regular files only, ``.safetensors`` or what ``torch.save`` writes;
- PyTorch's weights-only unpickler, with what mmengine's checkpoints hold beside weights;
- the checksums of PyTorch's zip format, which PyTorch itself does not check;
- every stated size against the file, before anything is allocated.
"""

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vfm_ss.compat.safe_globals import SAFE_GLOBALS, SAFE_NAMES
from vfm_ss.files import damaged, refused
from vfm_ss.pickle_scan import Scan, scan

REMEDY = "it is incomplete or no checkpoint, use another one"
_LEGACY_PICKLES = 5  # of torch's format before 1.6: magic, version, system, object, keys


def read(
    path: str | Path, map_location: Any = "cpu", *, remedy: str = REMEDY, code: str = "{}"
) -> Any:
    """Read a checkpoint.

    Args:
        path: The file. ``~`` is expanded.
        map_location: Where tensors go, see ``torch.load``.
        remedy: What to do about a damaged file, for the message.
        code: How the message calls pickled code, with ``{}`` for its names.

    Returns:
        What was saved; the tensors of a safetensors file by their names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file, is damaged, asks for more memory than it accounts
            for, or holds anything but tensors, plain values and mmengine's log history.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    damage = find_damage(path)
    if damage:
        raise ValueError(damaged(path, damage, remedy))
    try:
        if _is_safetensors(path):
            return _to(load_file(path), map_location)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # of many kinds, where a file is damaged by chance or on purpose
        unsafe = ", ".join(sorted(_names_of_code(path)))
        text = refused(path, code.format(unsafe)) if unsafe else damaged(path, error, remedy)
        raise ValueError(text) from error


def safetensors_facts(path: str | Path) -> dict[str, str]:
    """Return the texts that a safetensors file has beside its tensors; none for other files.

    Args:
        path: A file that `read` has read.
    """
    path = Path(path).expanduser()
    if not _is_safetensors(path):
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def find_damage(path: str | Path) -> str | None:
    """Check a checkpoint's checksums, and the sizes that it states.

    A flipped bit in the data of a safetensors file, or of one in PyTorch's format before 1.6, is
    not seen: they have no checksums.

    Returns:
        What is wrong; None for a sound file.

    Raises:
        OSError: If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return "it is not a regular file"
    size = path.stat().st_size
    if not size:
        return "the file is empty"
    if _is_safetensors(path):
        return None  # its reader checks every size
    with open(path, "rb") as file:
        try:
            found = _scan_zip(file, size) if _is_zip(file) else _scan_pickles(file, size)
        except ValueError as error:
            return str(error)
    problem = next((scan.problem for scan in found if scan.problem), None)
    return f"it asks for {problem}, which it does not hold" if problem else None


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with open(path, "rb") as file:
        start = file.read(9)
    if len(start) < 9 or start[8:] != b"{":
        return False
    return struct.unpack("<Q", start[:8])[0] <= path.stat().st_size


def _is_zip(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def _scan_zip(file: BinaryIO, size: int) -> list[Scan]:
    """Check the parts of a zip and scan its pickles.

    Raises:
        ValueError: If its table of contents, a checksum or a size is wrong.
    """
    try:
        archive = zipfile.ZipFile(file)
        _check_contents(archive.infolist(), size)
        broken = archive.testzip()
    except ValueError:
        raise
    except Exception as error:  # of many kinds, where the table of contents is broken
        raise ValueError(f"the file is incomplete: {error}") from error
    if broken:
        raise ValueError(f"wrong checksum of its part {broken}")
    sizes = {part.filename.partition("/")[2]: part.file_size for part in archive.infolist()}
    pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
    found = [scan(io.BytesIO(archive.read(name))) for name in pickles]
    for storage in (s for one in found for s in one.storages.values() if s.item):
        held = sizes.get(f"data/{storage.key}")
        if held not in (None, storage.size):
            raise ValueError(
                f"it asks for {storage.size} bytes of its part data/{storage.key}, which has {held}"
            )
    return found


def _check_contents(parts: list[zipfile.ZipInfo], size: int) -> None:
    """Check a zip's table of contents, before anything is unpacked."""
    names = [part.filename for part in parts]
    if len(set(names)) < len(names):
        raise ValueError("two of its parts have the same name")
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"its part {part.filename} is compressed, to {part.file_size} bytes when unpacked, "
                "which PyTorch does not do; read it with torch.load and save it again"
            )
    if sum(part.file_size for part in parts) > size:
        raise ValueError("its parts are larger than the file")


def _scan_pickles(file: BinaryIO, size: int) -> list[Scan]:
    """Scan the pickles of a file in PyTorch's old format, or of one that is a pickle alone.

    Raises:
        ValueError: If the first is none, or its tensors are larger than the file.
    """
    found: list[Scan] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while len(found) < _LEGACY_PICKLES and data.tell() < len(data):
            found.append(scan(data))
    stated = sum(storage.size for one in found for storage in one.storages.values())
    if stated > size:
        raise ValueError(f"it asks for {stated} bytes of tensors, but has {size} bytes")
    return found


def _names_of_code(path: Path) -> set[str]:
    """Return the names in a checkpoint's pickles that are not those of data."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            found = _scan_zip(file, size) if _is_zip(file) else _scan_pickles(file, size)
    except (OSError, ValueError):
        return set()
    names = set().union(*(one.names for one in found)) - SAFE_NAMES
    return {name for name in names if name.split(".")[0] not in ("torch", "collections")}


def _to(tensors: dict[str, torch.Tensor], map_location: Any) -> dict[str, torch.Tensor]:
    if map_location is None or str(map_location) == "cpu":
        return tensors
    return {name: tensor.to(map_location) for name, tensor in tensors.items()}

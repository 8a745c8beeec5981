"""Files: written so that a crash leaves the old one or the new one, refused in the same words.

Standard library only.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

_MARK = ".partial"


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace a file in one step that survives a kill or a power cut at any moment.

    The data goes to a hidden file in the same folder first. A process that is killed leaves that
    one behind for `remove_partial_files`.

    Args:
        path: File to write. Its folder must exist.
        data: Its whole content.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}{_MARK}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            hint = "the old file, if any, is untouched; make room or check permissions and quota"
            if not path.parent.is_dir():
                hint = f"the folder {path.parent} is gone, perhaps deleted while it was in use"
            raise OSError(error.errno, f"{error.strerror}; {hint}", str(path)) from error
        raise
    if hasattr(os, "O_DIRECTORY"):  # make the rename itself survive a power cut
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_partial_files(folder: str | Path) -> list[str]:
    """Remove what killed writes left in a folder, where nothing is being written.

    Returns:
        The names of the removed files.
    """
    found = sorted(Path(folder).glob(f".*{_MARK}"))
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


def sha256(paths: Sequence[Path]) -> str:
    """Return the SHA-256 checksum of a file; of several, that of their names and checksums.

    Args:
        paths: The files, at least one; their order does not matter.

    Raises:
        OSError: If one cannot be read.
    """
    found = {}
    for path in paths:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while part := file.read(2**20):
                digest.update(part)
        found[path.name] = digest.hexdigest()
    if len(found) == 1:
        return next(iter(found.values()))
    text = "".join(f"{name} {found[name]}\n" for name in sorted(found))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def refused(path: str | Path, found: str) -> str:
    """Say why a checkpoint is not loaded.

    Args:
        path: The file.
        found: What it holds beside data.
    """
    return (
        f"{path} is refused: it holds {found}, which could run code when loaded. Save its state "
        "dict alone (safetensors, or torch.save of a dict of tensors) and pass that file"
    )


def damaged(path: str | Path, reason: str | Exception, remedy: str) -> str:
    """Say why a checkpoint cannot be read.

    Args:
        path: The file.
        reason: What is wrong, or the error that reading it raised.
        remedy: What to do.
    """
    if isinstance(reason, Exception):
        reason = f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}"
    return f"{path} cannot be read as a checkpoint ({reason}); {remedy}"

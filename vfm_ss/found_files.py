"""The one reader of what lies in a folder that somebody else may have filled: a run's, a download.

Regular files of a stated size only: a named pipe would block for ever, a device never end. Nothing
is executed. Standard library only.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

#: Most bytes of a JSON file, of a log and of a line in it.
JSON_BYTES = 16 * 2**20
_LOG_BYTES = 2**28
_LINE_BYTES = 2**20
#: Read at once, and so allocated at once; most files are smaller.
_PART_BYTES = 2**15


def opened(path: str | Path, most: int | None = None) -> BinaryIO:
    """Open a regular file to read it.

    Args:
        path: The file.
        most: Bytes that it may have; None for any number.

    Raises:
        ValueError: If it is no regular file or larger.
        OSError: If it cannot be opened.
    """
    _check(path, os.stat(path), most)  # before opening: a device might act on that
    # Should it have become a pipe since, opening does not wait for its other end.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(path, os.fstat(number), most)
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read(path: str | Path, most: int) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        ValueError: If it cannot be read, is no regular file or is larger; one line that names it.
    """
    data = b""
    try:
        with opened(path, most) as file:
            # It may grow meanwhile, or be one of the kernel's, which state no size.
            while len(data) <= most and (part := file.read(max(_PART_BYTES, len(data)))):
                data += part
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise ValueError(f"{path}: too big, expected at most {most} bytes")
    return data


def tail(path: str | Path, most: int, start: int = 0) -> bytes:
    """Return the last bytes of a file, none before ``start``; b'' if it cannot be read."""
    try:
        with opened(path) as file:
            file.seek(max(start, os.fstat(file.fileno()).st_size - most))
            return file.read(most)
    except (OSError, ValueError):
        return b""


def lines(path: str | Path) -> Iterator[bytes]:
    """Read a log line by line.

    Raises:
        ValueError: If it cannot be read, is no regular file, or is too large or a line of it; one
            line that names it.
    """
    try:
        with opened(path, _LOG_BYTES) as file:
            while line := file.readline(_LINE_BYTES + 1):
                if len(line) > _LINE_BYTES:
                    raise ValueError(f"{path}: has a line of more than {_LINE_BYTES} bytes")
                yield line
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_json(path: str | Path, most: int = JSON_BYTES) -> Any:
    """Read one JSON file, refusing NaN, Infinity and an object that names a key twice.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        ValueError: If it cannot be read; one line that names the file.
    """
    data = read(path, most)
    try:
        text = data.decode("utf-8")
        if not text.strip():
            raise ValueError("the file is empty")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON, perhaps truncated: {error.msg} "
            f"(line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ValueError(f"{path}: JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def folders(
    root: str | Path, unreadable: Callable[[OSError], None], seen: set[tuple[int, int]]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a tree of any depth from the top down, through symbolic links, each folder once.

    Args:
        root: Its top.
        unreadable: Called with what cannot be listed.
        seen: Device and inode of the folders walked before; new ones are added.

    Yields:
        A folder, the sorted names of its folders and those of the rest. What the caller removes
        from the names of folders is not walked.
    """
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        subfolders, files = [], []
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in seen:  # reached again, or a loop
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    (subfolders if _is_folder(entry) else files).append(entry.name)
        except OSError as error:
            unreadable(error)
            continue
        seen.add((info.st_dev, info.st_ino))
        subfolders.sort()
        yield folder, subfolders, files
        waiting += [os.path.join(folder, name) for name in reversed(subfolders)]


def _check(path: str | Path, info: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ValueError(f"{path}: not a regular file")
    if most is not None and info.st_size > most:
        raise ValueError(f"{path}: {info.st_size} bytes, too big, expected at most {most}")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _refuse_constant(name: str):
    raise ValueError(f"holds {name}, expected a number or null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {sys.intern(name): value for name, value in pairs}  # the same in many files
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"holds {name[:60]!r} twice in one object")
    return found

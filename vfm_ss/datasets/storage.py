"""Read files inside zip and tar archives, in folders and on remote stores, by path alone.

`data/ADEChallengeData2016.zip/images/training/x.jpg` is a member of the archive, and so is
`s3://bucket/data.zip/x.jpg` where fsspec has the driver.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend

from vfm_ss.found_files import opened

from .archives import is_url, open_archive

_ARCHIVE = re.compile(r"^(.*?\.(?:zip|tar))(?:/(.*))?$", re.IGNORECASE)
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)(?:/|$)", re.IGNORECASE)


def split_archive(path: str | Path) -> tuple[str, str | None]:
    """Split a path at the first archive in it.

    Returns:
        The archive and the path inside it ('' for the archive itself), or the path and None where
        no part of it is an archive. A folder named like an archive is a folder.

    Raises:
        ValueError: If the archive is a compressed tar, which cannot be read at random.
    """
    path = str(path)
    if _COMPRESSED_TAR.search(path) and not os.path.exists(path):
        raise ValueError(f"{path}: a compressed tar cannot be read in place, unpack it")
    match = _ARCHIVE.match(path)
    if match is None or os.path.isdir(match[1]):
        return path, None
    return match[1], match[2] or ""


@register_backend("archive")
class ArchiveBackend(LocalBackend):
    """mmengine storage backend, `backend_args=dict(backend='archive')`; the default in vfm_ss."""

    def get(self, filepath: str | Path) -> bytes:
        """Read a file from a folder, an archive or a remote store.

        Raises:
            ValueError: If it is a named pipe or a device, which might never end.
        """
        path, inner = split_archive(filepath)
        if inner is not None:
            return open_archive(path).read(inner)
        if is_url(path):
            fs, name = fsspec.core.url_to_fs(path)
            return fs.cat_file(name)
        with opened(path) as file:
            return file.read()

    def get_text(self, filepath: str | Path, encoding: str = "utf-8") -> str:
        """Read a text file."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        """Return whether there is such a file or folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath: str | Path) -> bool:
        """Return whether there is such a file; an archive is a folder."""
        path, inner = split_archive(filepath)
        if inner is not None:
            return self._is_file(path) and _find(path, inner) in open_archive(path).members
        return self._is_file(path)

    def isdir(self, filepath: str | Path) -> bool:
        """Return whether there is such a folder."""
        path, inner = split_archive(filepath)
        if inner is not None:
            return self._is_file(path) and _find(path, inner) in open_archive(path).folders
        if is_url(path):
            fs, name = fsspec.core.url_to_fs(path)
            return fs.isdir(name)
        return super().isdir(path)

    def _is_file(self, path: str) -> bool:
        if is_url(path):
            fs, name = fsspec.core.url_to_fs(path)
            return fs.isfile(name)
        return super().isfile(path)

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Yield the paths of folders and files relative to a folder, as mmengine's LocalBackend."""
        path, inner = split_archive(dir_path)
        if inner is not None:
            folder = _find(path, inner)
            archive = open_archive(path)
            names = [(name, True) for name in archive.folders if name]
            names += [(name, False) for name in archive.members]
        elif is_url(path):
            fs, folder = fsspec.core.url_to_fs(path)
            found = fs.find(folder, withdirs=True, detail=True).values()
            names = [(entry["name"], entry["type"] == "directory") for entry in found]
        else:
            yield from super().list_dir_or_file(path, list_dir, list_file, suffix, recursive)
            return
        if list_dir and suffix is not None:
            raise TypeError("`suffix` should be None when `list_dir` is True")
        start = f"{folder.rstrip('/')}/" if folder else ""
        for name, is_dir in names:
            relative = name[len(start) :]
            if not name.startswith(start) or not relative or relative.startswith("."):
                continue
            wanted = list_dir if is_dir else list_file and relative.endswith(suffix or "")
            if wanted and (recursive or "/" not in relative):
                yield relative

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str]:
        """Give a local copy of a file for as long as the context lasts."""
        path, inner = split_archive(filepath)
        if inner is None and not is_url(path):
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / Path(str(filepath)).name
            copy.write_bytes(self.get(filepath))
            yield str(copy)


def stamp(path: str) -> str | None:
    """Return what changes when a file does: a checksum in a zip, else size and time of change.

    Args:
        path: The file, perhaps in an archive.

    Returns:
        None where it does not tell, as on a remote store, or is missing.
    """
    place, inner = split_archive(path)
    if is_url(place):
        return None
    if inner is not None:
        archive = open_archive(place)
        member = archive.members.get(archive.find(inner))
        if member is None:
            return None
        if member.crc is not None:
            return f"{member.crc} {member.size}"
    try:
        info = os.stat(place)
    except OSError:
        return None
    return f"{info.st_size} {info.st_mtime_ns}"


def _find(path: str, inner: str) -> str | None:
    return open_archive(path).find(inner)

"""Index zip and tar archives and read their files in place, checked.

An archive is indexed once per process. A read opens it and reads one range: nothing is shared
between forked, spawned or threaded workers, and it costs what opening an unpacked file costs.
"""

import os
import struct
import tarfile
import zipfile
import zlib
from functools import lru_cache
from typing import NamedTuple

import fsspec

from .transforms.decode import MAX_PIXELS, read_header

_LOCAL_HEADER = struct.Struct("<4s22xHH")
# The local header of a zip member may have a longer extra field than the directory says.
_EXTRA = 256
# A file of more bytes than this has to be worth them: a small archive can state any size.
_LARGE = 2**24
_HEAD = 2**16  # bytes in which an image says its size in pixels
_PIXEL_BYTES = 8  # of an image that is not compressed: four channels of 16 bits
_MAX_SIZE = MAX_PIXELS * _PIXEL_BYTES


class _Member(NamedTuple):
    offset: int  # of the data in a tar, of the local header in a zip
    stored: int  # bytes in the archive
    size: int  # bytes of the file
    deflated: bool = False
    crc: int | None = None  # None: a tar has no checksum
    name: str = ""  # as the directory of a zip says it


class Archive:
    """Index of a zip or an uncompressed tar.

    Args:
        path: Local path or URL of the archive.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, damaged or of another type.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        fs, name = fsspec.core.url_to_fs(path)
        if not fs.isfile(name):
            raise FileNotFoundError(f"{path} does not exist: download it, or correct data_root")
        index = _index_tar if path.lower().endswith(".tar") else _index_zip
        try:
            with fs.open(name, "rb") as file:
                self.members = index(file, fs.size(name))
        except Exception as error:  # the readers raise many types on damaged bytes
            raise ValueError(
                f"{path}: not a readable archive ({_printable(error)}): truncated or damaged, "
                "download it again"
            ) from None
        self.folders = {""}
        for member in self.members:
            while member:
                member = member.rpartition("/")[0]
                if member in self.folders:
                    break
                self.folders.add(member)
        self.top = _common_folder(self.folders, self.members)

    def find(self, inner: str) -> str | None:
        """Resolve a path inside the archive; folders that hold everything may be left out.

        `images/x.jpg` finds `ADEChallengeData2016/images/x.jpg`, so that the path of an archive can
        stand for the path of its unpacked main folder.

        Returns:
            The full path in the archive, or None.
        """
        if inner in self.members:
            return inner
        inner = os.path.normpath(inner).replace(os.sep, "/").strip("/") if inner else ""
        inner = "" if inner == "." else inner
        parts = self.top.split("/") if self.top else []
        for depth in range(len(parts) + 1):
            name = "/".join([*parts[:depth], *([inner] if inner else [])])
            if name in self.members or name in self.folders:
                return name
        return None

    def read(self, inner: str) -> bytes:
        """Read a member.

        Raises:
            FileNotFoundError: If the archive has no such file.
            ValueError: If the member is damaged.
        """
        name = self.find(inner)
        if name not in self.members:
            raise FileNotFoundError(
                f"{_printable(inner)} is missing in the archive {self.path}: download it again or "
                "fix the path"
            )
        member = self.members[name]
        try:
            return self._read(name, member)
        except Exception as error:
            raise ValueError(
                f"{_printable(name)} in the archive {self.path} is damaged ({_printable(error)}): "
                "download it again"
            ) from None

    def _read(self, name: str, member: _Member) -> bytes:
        if member.crc is None:
            data = _read_range(self.path, member.offset, member.stored)
        else:
            if member.size > _LARGE:
                _refuse_excess(self._unpack(member, _HEAD), member.size)
            data = self._unpack(member, member.size)
            if zlib.crc32(data) != member.crc:
                raise ValueError("wrong checksum")
        if len(data) != member.size:
            raise ValueError(f"{len(data)} bytes where {member.size} were expected")
        return data

    def _unpack(self, member: _Member, size: int) -> bytes:
        """Return the first bytes of a member of a zip: `size`, or all where it has no more."""
        part = size < member.size
        stored = min(member.stored, size) if part else member.stored
        room = _LOCAL_HEADER.size + len(member.name.encode()) + _EXTRA
        raw = memoryview(_read_range(self.path, member.offset, room + stored))
        magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(raw)
        if magic != b"PK\x03\x04":
            raise ValueError("no file header where the directory points")
        begin = _LOCAL_HEADER.size + name_length
        local = bytes(raw[_LOCAL_HEADER.size : begin])
        if member.name not in (local.decode("utf-8", "replace"), local.decode("cp437")):
            raise ValueError(f"its own header calls it {local[:200]!r}")
        begin += extra_length
        if begin > room:
            raw, begin = _read_range(self.path, member.offset + begin, stored), 0
        data = raw[begin : begin + stored]
        if not member.deflated:
            return bytes(data)
        if part:
            return zlib.decompressobj(-15).decompress(data, size)
        return _inflate(data, member.size)


def _refuse_excess(head: bytes, size: int) -> None:
    """Refuse a size that no image of this header needs, before memory is taken for it."""
    try:
        height, width = read_header(head, "")[:2]
    except ValueError:  # another type of file, or its header lies further back
        most = _MAX_SIZE
    else:
        most = height * width * _PIXEL_BYTES + _LARGE
    if size > most:
        raise ValueError(f"{size} bytes are stated, its content can have {most} at most")


def _inflate(data: bytes, size: int) -> bytes:
    """Decompress, but no more than one byte beyond the size that the directory states."""
    inflater = zlib.decompressobj(-15)
    content = inflater.decompress(data, size + 1)
    if not inflater.eof and len(content) <= size:
        raise ValueError("compressed data break off")
    return content


def _printable(text: object) -> str:
    """Return a text as one printable line: names in an archive may hold anything."""
    text = " ".join(str(text).split())
    return text if text.isprintable() else repr(text)


def _read_range(path: str, start: int, length: int) -> bytes:
    """Read bytes of a file, opened each time: nothing is shared between processes."""
    if not is_url(path):
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(length)
    fs, name = fsspec.core.url_to_fs(path)
    return fs.cat_file(name, start=start, end=start + length)


def _common_folder(folders: set[str], members: dict[str, _Member]) -> str:
    """Return the longest folder that holds every member."""
    outer = [name.rpartition("/")[0] for name in members]
    try:
        top = os.path.commonpath(outer) if outer and all(outer) else ""
    except ValueError:  # names with and without a leading slash have nothing in common
        top = ""
    return top if top in folders else ""


def _index_zip(file, size: int) -> dict[str, _Member]:
    members = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(f"{info.filename} is encrypted or compressed by another method")
            members[info.filename] = _Member(
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type == zipfile.ZIP_DEFLATED,
                info.CRC,
                info.orig_filename,
            )
    return members


def _index_tar(file, size: int) -> dict[str, _Member]:
    members = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.size < 0 or info.offset_data + info.size > size:
                raise ValueError(f"{info.name} is said to be {info.size} bytes long")
            if info.isreg():
                name = info.name.removeprefix("./")
                members[name] = _Member(info.offset_data, info.size, info.size)
            # tarfile keeps every header otherwise.
            archive.members = []
        end = archive.offset
    # tarfile stops in silence at anything that is no header: only zeros are a proper end.
    file.seek(end)
    if file.read(512) != bytes(512):
        raise ValueError(f"the list of files breaks off at byte {end} of {size}")
    return members


@lru_cache(maxsize=64)
def open_archive(path: str) -> Archive:
    """Return the index of an archive, made once per process and inherited by forked workers."""
    return Archive(path)


def is_url(path: str) -> bool:
    """Return whether a path is one of a remote store."""
    return "://" in path

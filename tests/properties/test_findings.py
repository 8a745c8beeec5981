"""Inputs that once broke a reader, found by tools/fuzz or while it was written, and seeds of it."""

import io
import json
import struct
import sys
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfm_ss.datasets.archives import Archive
from vfm_ss.protocol.records import Record, read_record

sys.path.append(str(Path(__file__).parents[2] / "tools" / "fuzz"))
from targets import TARGETS, seeds  # the fuzzer's own checks


@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzers_seeds_are_accepted(target, tmp_path):
    assert all(TARGETS[target](seed, tmp_path) for seed in seeds(target))


@st.composite
def damaged(draw, target):
    """A valid file with a few bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(seeds(target))))
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(data)))
        cut = draw(st.sampled_from([0, 0, 1, 4, 100]))
        data[where : where + cut] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_read_or_refused_with_one_line(target, tmp_path):
    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=damaged(target))
    def check(data):
        TARGETS[target](data, tmp_path)

    check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("miou", 10**400),
        ("train_seconds", 10**400),
        ("history", [[1, 10**400]]),
        ("step", 2**63),
        ("seed", 10**4000),
    ],
)
def test_numbers_without_end_are_no_record(field, value, tmp_path):
    record = Record("a", "a", "linear", "x", "x", "running")
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**asdict(record), field: value}))
    with pytest.raises(ValueError, match=f"field '{field}' is .*expected") as error:
        read_record(path)
    assert len(str(error.value)) < 300


def tar_with_size(size: int) -> bytes:
    """A tar of two files, the second one's size replaced and its header's checksum mended."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 1024
            archive.addfile(info, io.BytesIO(bytes(1024)))
    data = bytearray(out.getvalue())
    header = 512 + 1024
    lead = b"\xff" if size < 0 else b"\x80"  # GNU's binary numbers
    data[header + 124 : header + 136] = lead * 1 + size.to_bytes(11, "big", signed=True)
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 155] = b"%06o\0" % sum(data[header : header + 512])
    return bytes(data)


@pytest.mark.parametrize("size", [-1536, -1, 2**40])
def test_a_tar_member_of_impossible_size_is_refused(size, tmp_path):
    """A negative one would make the list of files go in circles."""
    path = tmp_path / "data.tar"
    path.write_bytes(tar_with_size(1024))
    assert len(Archive(str(path)).members) == 2
    path.write_bytes(tar_with_size(size))
    with pytest.raises(ValueError, match=f"b is said to be {size} bytes long"):
        Archive(str(path))


def zip_with(name: str, content: bytes, stated: int | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    data = bytearray(out.getvalue())
    if stated is not None:
        directory = data.rfind(b"PK\x01\x02")
        data[directory + 24 : directory + 28] = struct.pack("<I", stated)
    return bytes(data)


def test_no_more_is_unpacked_than_the_directory_states(tmp_path):
    import tracemalloc

    path = tmp_path / "data.zip"
    path.write_bytes(zip_with("a.png", bytes(2**26), stated=10))
    archive = Archive(str(path))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.png in the archive .*data\.zip is damaged"):
        archive.read("a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_unprintable_name_does_not_break_the_message(tmp_path):
    path = tmp_path / "data.zip"
    path.write_bytes(zip_with("a\nb\x1b[2J.png", b"1" * 100, stated=5))
    with pytest.raises(ValueError, match="is damaged") as error:
        Archive(str(path)).read("a\nb\x1b[2J.png")
    assert str(error.value).isprintable()


def test_names_with_and_without_a_leading_slash_have_no_common_folder(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("/a/b.png", "a/c.png"):
            archive.writestr(name, name)
    archive = Archive(str(path))
    assert archive.read("/a/b.png") == b"/a/b.png"
    assert archive.read("a/c.png") == b"a/c.png"

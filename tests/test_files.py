import errno
import os

import pytest

from vfm_ss.files import remove_partial_files, write_atomically


def test_a_file_is_replaced_and_nothing_left_beside_it(tmp_path):
    for data in (b"old", b"", b"x" * 10**6):
        write_atomically(tmp_path / "a b é.bin", data)
        assert (tmp_path / "a b é.bin").read_bytes() == data
    assert os.listdir(tmp_path) == ["a b é.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(broken, tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda _: os._exit(0)
        write_atomically(tmp_path / "a", b"new")
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    (tmp_path / ".other").write_bytes(b"")
    (tmp_path / "b.partial").write_bytes(b"")
    assert remove_partial_files(tmp_path) == [f".a.{pid}.partial"]
    assert sorted(os.listdir(tmp_path)) == [".other", "b.partial"]


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*gone is gone, perhaps deleted"):
        write_atomically(tmp_path / "gone" / "a", b"new")

import io
import multiprocessing as mp
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import mmengine.fileio as fileio
import numpy as np
import pytest
from PIL import Image

from vfm_ss.datasets import archives
from vfm_ss.datasets.archives import open_archive
from vfm_ss.datasets.storage import ArchiveBackend, split_archive

ARGS = {"backend": "archive"}
FILES = {
    "Main/images/train/a.jpg": bytes(range(256)) * 40,
    "Main/images/train/b.jpg": np.random.default_rng(0).bytes(5000),
    "Main/images/val/c.jpg": b"",
    "Main/labels/train/a.png": b"x" * 20000,
    "Main/readme.txt": "grüße".encode(),
}


def make(path, files=FILES, kind=None, **options):
    kind = kind or str(path).rpartition(".")[2]
    if kind == "folder":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w", **options) as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture(
    params=["folder", "stored.zip", "deflated.zip", "ustar.tar", "gnu.tar", "pax.tar", "memory"]
)
def root(request, tmp_path):
    name = request.param
    if name == "folder":
        return make(tmp_path / "plain", kind="folder")
    if name == "memory":
        local = make(tmp_path / "x.zip")
        url = f"memory://{tmp_path.name}/x.zip"
        with fsspec.open(url, "wb") as file, open(local, "rb") as source:
            file.write(source.read())
        return url
    options = {
        "stored.zip": dict(compression=zipfile.ZIP_STORED),
        "deflated.zip": dict(compression=zipfile.ZIP_DEFLATED),
        "ustar.tar": dict(format=tarfile.USTAR_FORMAT),
        "gnu.tar": dict(format=tarfile.GNU_FORMAT),
        "pax.tar": dict(format=tarfile.PAX_FORMAT),
    }[name]
    return make(tmp_path / name, **options)


class TestBackend:
    def test_every_member_has_its_bytes(self, root):
        for name, data in FILES.items():
            assert fileio.get(f"{root}/{name}", ARGS) == data
        assert fileio.get_text(f"{root}/Main/readme.txt", backend_args=ARGS) == "grüße"

    def test_listing_is_that_of_a_folder(self, root, tmp_path):
        folder = make(tmp_path / "reference", kind="folder")
        for options in (
            dict(recursive=True, list_dir=False),
            dict(recursive=True, list_dir=False, suffix=".jpg"),
            dict(recursive=True),
            {},
            dict(list_file=False),
        ):
            for inner in ("Main", "Main/images", "Main/images/train"):
                ours = fileio.list_dir_or_file(f"{root}/{inner}", backend_args=ARGS, **options)
                theirs = fileio.list_dir_or_file(f"{folder}/{inner}", **options)
                assert sorted(ours) == sorted(theirs), (inner, options)

    def test_exists(self, root):
        backend = ArchiveBackend()
        assert backend.isdir(root)
        assert backend.isdir(f"{root}/Main/images")
        assert not backend.isfile(f"{root}/Main/images")
        assert backend.isfile(f"{root}/Main/images/train/a.jpg")
        assert not backend.exists(f"{root}/Main/images/train/z.jpg")

    def test_missing_member_names_file_and_place(self, root):
        with pytest.raises(FileNotFoundError, match=r"Main/images/z\.jpg") as error:
            fileio.get(f"{root}/Main/images/z.jpg", ARGS)
        assert root in str(error.value)

    def test_local_copy(self, root):
        with ArchiveBackend().get_local_path(f"{root}/Main/readme.txt") as path:
            assert Path(path).read_text(encoding="utf-8") == "grüße"


def test_main_folder_may_be_left_out(tmp_path):
    path = make(tmp_path / "x.zip")
    assert fileio.get(f"{path}/images/train/a.jpg", ARGS) == FILES["Main/images/train/a.jpg"]
    assert ArchiveBackend().isdir(f"{path}/labels")
    # Only folders that hold everything are left out: nothing is found by accident.
    assert not ArchiveBackend().exists(f"{path}/train/a.jpg")


def test_two_common_folders_may_be_left_out(tmp_path):
    files = {"VOCdevkit/VOC2012/JPEGImages/a.jpg": b"a", "VOCdevkit/VOC2012/b/c.txt": b"c"}
    path = make(tmp_path / "voc.tar", files)
    for inner in ("JPEGImages/a.jpg", "VOC2012/JPEGImages/a.jpg"):
        assert fileio.get(f"{path}/{inner}", ARGS) == b"a"


def test_zip_with_longer_local_extra_fields(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a.bin")
        info.extra = b"\x99\x99" + (700).to_bytes(2, "little") + bytes(700)
        archive.writestr(info, b"payload" * 100)
    assert fileio.get(f"{path}/a.bin", ARGS) == b"payload" * 100


def test_zip_with_appended_directory(tmp_path):
    """The directory comes last and wins: an updated member is the new one."""
    path = make(tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Main/new.txt", b"new")
    assert fileio.get(f"{path}/Main/new.txt", ARGS) == b"new"


def test_long_names_in_a_tar(tmp_path):
    name = "/".join(["folder" * 20] * 3) + "/file.jpg"
    path = make(tmp_path / "x.tar", {name: b"data"}, format=tarfile.GNU_FORMAT)
    assert fileio.get(f"{path}/{name}", ARGS) == b"data"


def test_folder_named_like_an_archive(tmp_path):
    folder = tmp_path / "data.zip"
    make(folder, kind="folder")
    assert fileio.get(f"{folder}/Main/readme.txt", ARGS) == FILES["Main/readme.txt"]
    assert split_archive(f"{folder}/x") == (f"{folder}/x", None)


def _read_many(path, names, queue):
    queue.put([fileio.get(f"{path}/{name}", ARGS) for name in names])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_at_once(tmp_path, method):
    path = make(tmp_path / "x.zip", compression=zipfile.ZIP_DEFLATED)
    open_archive(path)
    if method == "spawn":
        # A spawned process imports what it runs by name, which importlib mode gives no test file.
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            backend = ArchiveBackend()
            reads = list(pool.map(backend.get, [f"{path}/{name}" for name in FILES] * 5))
        assert reads == list(FILES.values()) * 5
        return
    context = mp.get_context(method)
    queue = context.Queue()
    names = list(FILES) * 50
    workers = [context.Process(target=_read_many, args=(path, names, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert queue.get(timeout=60) == list(FILES.values()) * 50
    for worker in workers:
        worker.join()


class TestDamage:
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_truncated_archive_is_named(self, tmp_path, kind):
        whole = Path(make(tmp_path / f"whole.{kind}")).read_bytes()
        end = len(whole.rstrip(b"\0")) if kind == "tar" else len(whole)
        for part, cut in enumerate(np.linspace(0, end - 1, 25).astype(int)):
            path = tmp_path / f"cut{part}.{kind}"
            path.write_bytes(whole[:cut])
            with pytest.raises(ValueError, match=rf"cut{part}\.{kind}: .*download it again"):
                open_archive(str(path))

    def test_missing_archive(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.zip does not exist"):
            fileio.get(f"{tmp_path}/none.zip/a.jpg", ARGS)

    def test_damaged_member_is_named_with_its_archive(self, tmp_path):
        path = make(tmp_path / "x.zip")
        data = bytearray(Path(path).read_bytes())
        at = bytes(data).index(FILES["Main/images/train/b.jpg"])
        data[at + 100] ^= 1
        Path(path).write_bytes(data)
        with pytest.raises(ValueError, match=r"Main/images/train/b\.jpg in .*x\.zip is damaged"):
            fileio.get(f"{path}/Main/images/train/b.jpg", ARGS)
        assert fileio.get(f"{path}/Main/readme.txt", ARGS) == FILES["Main/readme.txt"]

    def test_compressed_tar_is_refused(self, tmp_path):
        path = str(tmp_path / "x.tar.gz/a.jpg")
        with pytest.raises(ValueError, match=r"x\.tar\.gz/a\.jpg: a compressed tar .*unpack"):
            fileio.get(path, ARGS)
        renamed = tmp_path / "x.tar"
        with tarfile.open(renamed, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a"))
        with pytest.raises(ValueError, match=r"x\.tar: not a readable archive"):
            open_archive(str(renamed))

    def test_encrypted_member_is_refused(self, tmp_path):
        path = make(tmp_path / "x.zip")
        data = bytearray(Path(path).read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        Path(path).write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.zip: .*encrypted"):
            open_archive(path)


def test_wrong_size_in_the_directory(tmp_path):
    path = make(tmp_path / "x.zip", {"a": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    Path(path).write_bytes(data)
    with pytest.raises(ValueError, match=r"a in .*x\.zip is damaged"):
        fileio.get(f"{path}/a", ARGS)


def renamed_local(path, old, new):
    """Change a name in the header before the data, but not in the directory at the end."""
    data = Path(path).read_bytes()
    at = data.index(b"PK\x03\x04")
    at = data.index(old, at)
    Path(path).write_bytes(data[:at] + new + data[at + len(new) :])


@pytest.mark.parametrize("new", [b"Main/images/train/b.jpg", b"\0", b"\xff", b"main"])
def test_a_zip_whose_names_differ_is_refused_as_by_zipfile(tmp_path, new):
    path = make(tmp_path / "x.zip")
    renamed_local(path, b"Main/images/train/a.jpg", new)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("Main/images/train/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg in .*x\.zip is damaged .its own header calls"):
        fileio.get(f"{path}/Main/images/train/a.jpg", ARGS)


@pytest.mark.parametrize("name", ["ä.bin", "画像.bin", "a b/ü.bin"])
def test_names_beyond_ascii(tmp_path, name):
    path = make(tmp_path / "x.zip", {name: b"data", "other": b""})
    assert fileio.get(f"{path}/{name}", ARGS) == b"data"


def picture(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
class TestExcess:
    def test_more_bytes_than_the_image_s_header_needs(self, tmp_path, method, monkeypatch):
        data = picture((10, 10)) + bytes(2**25)
        path = make(tmp_path / "x.zip", {"a.png": data}, compression=method)
        read = []
        original = archives._read_range
        monkeypatch.setattr(
            archives, "_read_range", lambda *args: read.append(args[2]) or original(*args)
        )
        with pytest.raises(ValueError, match=r"a\.png in .*x\.zip is damaged .*can have 16778016 "):
            fileio.get(f"{path}/a.png", ARGS)
        assert max(read) < 2**17

    def test_more_bytes_than_any_image(self, tmp_path, method, monkeypatch):
        monkeypatch.setattr(archives, "_MAX_SIZE", 2**25)
        path = make(tmp_path / "x.zip", {"a.bin": bytes(2**25 + 1)}, compression=method)
        with pytest.raises(ValueError, match=r"33554433 bytes are stated, .* 33554432 at most"):
            fileio.get(f"{path}/a.bin", ARGS)

    def test_large_files_that_are_worth_it(self, tmp_path, method):
        noise = np.random.default_rng(0).integers(0, 256, (2400, 2500, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG", compress_level=0)
        files = {"a.png": buffer.getvalue(), "b.bin": bytes(2**24 + 1)}
        assert len(files["a.png"]) > 2**24
        path = make(tmp_path / "x.zip", files, compression=method)
        for name, data in files.items():
            assert fileio.get(f"{path}/{name}", ARGS) == data


def test_index_is_made_once(tmp_path, monkeypatch):
    path = make(tmp_path / "x.tar")
    calls = []
    original = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: calls.append(1) or original(*a, **k))
    for name in FILES:
        fileio.get(f"{path}/{name}", ARGS)
    assert calls == [1]

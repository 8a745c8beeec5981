"""Random damage to images, labels and archives: an error that names the file, nothing else."""

import io
import tarfile
import time
import zipfile

import mmengine.fileio as fileio
import numpy as np
import pytest
from PIL import Image

from vfm_ss.datasets.archives import open_archive
from vfm_ss.datasets.transforms import decode
from vfm_ss.datasets.transforms.decode import decode_image, decode_label

ROUNDS = 700
# Seconds that one damaged file may take; a sound one takes a millisecond.
LIMIT = 5


def picture(kind, mode="RGB", size=(64, 48), **options):
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], 3) if mode in ("RGB", "RGBA") else (size[1], size[0])
    values = rng.integers(0, 2 ** options.get("bits", 8) * 3 // 5, shape, np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.frombytes("P", size, values.tobytes())
        image.putpalette(list(range(256)) * 3)
        options.setdefault("bits", 8)
    elif mode == "RGBA":
        image.putalpha(255)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def damage(data, rng):
    """Flip bits, overwrite, cut, remove, repeat or insert somewhere."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if data else 0
        # Headers are short but matter most.
        at = at if rng.random() < 0.5 else min(at, int(rng.integers(1, 64)))
        length = int(rng.integers(1, 40))
        match int(rng.integers(6)):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(length)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def assert_one_line(error, name):
    assert name in str(error)
    assert "\n" not in str(error)


SOURCES = {
    "jpeg": (decode_image, picture("JPEG", quality=90)),
    "progressive jpeg": (decode_image, picture("JPEG", progressive=True)),
    "png": (decode_image, picture("PNG")),
    "gray label": (decode_label, picture("PNG", "L")),
    "palette label": (decode_label, picture("PNG", "P")),
    "4-bit palette label": (decode_label, picture("PNG", "P", bits=4)),
    "tiff label": (decode_label, picture("TIFF", "L", compression="tiff_adobe_deflate")),
    "png with alpha": (decode_image, picture("PNG", "RGBA")),
    "gray png": (decode_image, picture("PNG", "L")),
    "tiff": (decode_image, picture("TIFF", compression="tiff_lzw")),
    "bmp": (decode_image, picture("BMP")),
    "gif": (decode_image, picture("GIF", "L")),
    "webp": (decode_image, picture("WEBP", lossless=True)),
}
# Formats with a checksum over their pixels.
CHECKED = [name for name, (_, data) in SOURCES.items() if data.startswith(b"\x89PNG")]


@pytest.mark.parametrize("library", ["kornia-rs", "fallback"])
@pytest.mark.parametrize("source", SOURCES)
def test_damaged_files(source, library, monkeypatch):
    if library == "fallback":
        monkeypatch.setattr(decode, "decode_image_png_u8", None)
    function, sound = SOURCES[source]
    function(sound, "sound")
    rng = np.random.default_rng(len(source))
    refused = 0
    for round_ in range(ROUNDS):
        data = damage(sound, rng)
        started = time.monotonic()
        try:
            result = function(data, f"some/file_{round_}.x")
        except ValueError as error:
            refused += 1
            assert_one_line(error, f"some/file_{round_}.x: ")
        else:
            assert result.dtype == np.uint8
            assert result.ndim == (3 if function is decode_image else 2)
        assert time.monotonic() - started < LIMIT
    # A PNG's pixels have a checksum: nearly all damage is found.
    assert refused > ROUNDS * (0.9 if source in CHECKED else 0.2)


MEMBERS = {f"top/folder/{k}.bin": np.random.default_rng(k).bytes(300) for k in range(5)}


def archive(kind):
    buffer = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return buffer.getvalue()
    method = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in MEMBERS.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["stored", "deflated", "tar"])
def test_damaged_archives(kind, tmp_path):
    sound = archive(kind)
    rng = np.random.default_rng(len(kind))
    suffix = "tar" if kind == "tar" else "zip"
    refused = 0
    for round_ in range(ROUNDS):
        path = tmp_path / f"{round_}.{suffix}"
        path.write_bytes(damage(sound, rng))
        started = time.monotonic()
        for name, expected in MEMBERS.items():
            try:
                data = fileio.get(f"{path}/{name}", {"backend": "archive"})
            except (ValueError, FileNotFoundError) as error:
                refused += 1
                assert_one_line(error, f"{round_}.{suffix}")
            else:
                # A zip's checksums catch every change; a tar has none.
                assert data == expected or kind == "tar"
        assert time.monotonic() - started < LIMIT
        open_archive.cache_clear()
        path.unlink()
    assert refused > ROUNDS / 5

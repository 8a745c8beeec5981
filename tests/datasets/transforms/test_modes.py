"""Images of every depth and mode: read as Pillow reads them, or refused with one line."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from vfm_ss.datasets.transforms import decode
from vfm_ss.datasets.transforms.decode import decode_image, decode_label, orientation, read_header

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (40, 60, 3), np.uint8)
KINDS = ("PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG", "JPEG2000", "PPM", "AVIF")
MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")


def encode(image, kind, **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    if kind in ("WEBP", "AVIF"):
        options |= dict(lossless=True) if kind == "WEBP" else dict(quality=100)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_mode(mode, alpha=255):
    if mode in ("I", "I;16", "F"):
        kinds = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
        return Image.fromarray(RNG.integers(0, 4096, (40, 60)).astype(kinds[mode]))
    image = Image.fromarray(COLOURS).convert(mode)
    if mode in ("LA", "PA", "RGBA"):
        image.putalpha(Image.fromarray(np.full((40, 60), alpha, np.uint8)))
    return image


def pairs():
    for kind in KINDS:
        for mode in MODES:
            try:
                data = encode(of_mode(mode), kind)
                Image.open(io.BytesIO(data)).load()
            except Exception:
                continue
            yield pytest.param(kind, mode, id=f"{kind} {mode}")


READ = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")


def assert_names(error, *words):
    line = str(error.value)
    assert line.startswith("some/image.x: ")
    assert "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("library", ["kornia-rs", "fallback"])
@pytest.mark.parametrize(("kind", "mode"), pairs())
def test_every_mode_is_read_as_pillow_reads_it_or_refused(kind, mode, library, monkeypatch):
    if library == "fallback":
        monkeypatch.setattr(decode, "decode_image_png_u8", None)
    data = encode(of_mode(mode), kind)
    with Image.open(io.BytesIO(data)) as image:
        stored = image.mode
        expected = np.asarray(image.convert("RGB"))[..., ::-1]
    if stored in READ and kind != "JPEG2000":
        result = decode_image(data, "some/image.x")
        assert result.dtype == np.uint8
        assert np.abs(result.astype(int) - expected).max() <= (kind in ("JPEG", "AVIF"))
        return
    with pytest.raises(ValueError, match="an image ") as error:
        decode_image(data, "some/image.x")
    assert_names(error, kind if kind == "JPEG2000" else f"mode {stored}", "export it")


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("alpha", [0, 128, 254])
def test_transparent_pixels_are_refused(kind, mode, alpha):
    try:
        data = encode(of_mode(mode, alpha), kind)
    except OSError:
        pytest.skip(f"{kind} has no {mode}")
    with pytest.raises(ValueError, match="an image must hold 8-bit gray or RGB") as error:
        decode_image(data, "some/image.x")
    assert_names(error, "transparent pixels", "export it on a background")


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_colour_that_stands_for_transparency(kind, mode):
    """It hides pixels where it occurs, and nothing where it does not."""
    image = of_mode(mode)
    values = np.unique(np.asarray(image).reshape(-1, 3 if mode == "RGB" else 1), axis=0)
    if kind == "GIF" and mode == "RGB":
        pytest.skip("GIF has a palette")
    some = tuple(values[3].tolist())
    data = encode(image, kind, transparency=some if mode == "RGB" else some[0])
    with pytest.raises(ValueError, match="transparent pixels"):
        decode_image(data, "some/image.x")
    if mode == "RGB":
        none = next(c for c in np.ndindex(4, 4, 4) if not (values == c).all(1).any())
        data = encode(image, kind, transparency=none)
        assert np.array_equal(decode_image(data, "some/image.x"), COLOURS[..., ::-1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
@pytest.mark.parametrize("bits", range(9, 17))
def test_deep_images_are_refused_or_scaled_from_the_range_that_is_stated(suffix, channels, bits):
    pixels = np.random.default_rng(bits).integers(0, 2**bits, (256, 300, channels), np.uint16)
    pixels[0, :2] = [[0], [2**bits - 1]]
    suffix = ".pgm" if (suffix, channels) == (".ppm", 1) else suffix
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    with pytest.raises(ValueError, match="16-bit numbers") as error:
        decode_image(data, "some/image.x")
    assert_names(error, "mode ", "bit_depth=12", "largest value")
    expected = np.floor(pixels.astype(float) * 255 / (2**bits - 1) + 0.5)
    result = decode_image(data, "some/image.x", bit_depth=bits)
    assert np.array_equal(result, np.broadcast_to(expected, result.shape))
    if bits > 9:
        with pytest.raises(ValueError, match="there is a value of") as error:
            decode_image(data, "some/image.x", bit_depth=bits - 1)
        assert_names(error, f"bit_depth={bits - 1} was stated", "correct bit_depth")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
@pytest.mark.parametrize("bit_depth", [9, 12, 16])
def test_an_8_bit_image_where_more_was_stated(kind, bit_depth):
    with pytest.raises(ValueError, match="8-bit numbers") as error:
        decode_image(encode(COLOURS, kind), "some/image.x", bit_depth=bit_depth)
    assert_names(error, f"bit_depth={bit_depth} was stated")


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_in_a_tiff(kind, channels):
    pixels = RNG.integers(0, 200, (40, 60, channels)).astype(kind)
    data = cv2.imencode(".tiff", pixels)[1].tobytes()
    for bit_depth in (8, 12):
        with pytest.raises(ValueError, match=r"some/image\.x: ") as error:
            decode_image(data, "some/image.x", bit_depth=bit_depth)
        assert "\n" not in str(error.value)
        assert "export it again" in str(error.value)
        assert "damaged" not in str(error.value)
        assert "object at" not in str(error.value)
        if channels == 3:
            number = {"i": "signed", "f": "floating-point"}[pixels.dtype.kind]
            assert f"3 bands of {8 * pixels.itemsize}-bit {number} numbers" in str(error.value)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP"])
def test_several_pages_are_refused(kind):
    pages = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1])]
    data = encode(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="2 pages or frames") as error:
        decode_image(data, "some/image.x")
    assert_names(error, "export the one that is meant")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_ignored_everywhere_or_refused(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    plain = encode(COLOURS, kind)
    data = encode(COLOURS, kind, exif=exif)
    assert orientation(data) == turn
    if kind == "TIFF" and turn != 1:
        with pytest.raises(ValueError, match=f"a TIFF with orientation {turn}") as error:
            decode_image(data, "some/image.x")
        assert_names(error, "turn its pixels")
        return
    assert np.array_equal(decode_image(data, "x"), decode_image(plain, "x"))
    assert read_header(data, "x")[:2] == COLOURS.shape[:2]
    if kind == "PNG":  # with damaged EXIF, which Pillow refuses and decoders of pixels pass over
        at = data.index(b"eXIf") + 20
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert orientation(data) == 1
        assert np.array_equal(decode_image(data, "x"), decode_image(plain, "x"))
    if kind == "JPEG":
        for reduce in (2, 4, 8):
            assert np.array_equal(decode_image(data, "x", reduce), decode_image(plain, "x", reduce))


class TestLabels:
    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
    def test_a_format_that_changes_values_is_refused(self, kind):
        with pytest.raises(ValueError, match=f"this file is {kind}, which changes values") as error:
            decode_label(encode(COLOURS[..., 0] % 3, kind), "some/image.x")
        assert_names(error, "make it again from its source")

    def test_a_tiff_with_jpeg_inside_is_refused(self):
        data = encode(COLOURS[..., 0] % 3, "TIFF", compression="jpeg")
        with pytest.raises(ValueError, match="TIFF with jpeg compression"):
            decode_label(data, "some/image.x")

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_a_tiff_without_losses_is_read(self, compression, mode):
        image = Image.fromarray(COLOURS[..., 0])
        if mode == "P":
            image = Image.frombytes("P", image.size, image.tobytes())
            image.putpalette(list(range(256)) * 3)
        data = encode(image, "TIFF", compression=compression)
        assert np.array_equal(decode_label(data, "x"), COLOURS[..., 0])

    @pytest.mark.parametrize("turn", range(2, 9))
    def test_a_turned_tiff_is_refused(self, turn):
        exif = Image.Exif()
        exif[0x0112] = turn
        with pytest.raises(ValueError, match=f"a TIFF with orientation {turn}"):
            decode_label(encode(COLOURS[..., 0], "TIFF", exif=exif), "some/image.x")

    @pytest.mark.parametrize("library", ["kornia-rs", "fallback"])
    @pytest.mark.parametrize("missing", [1, 7, 29])
    @pytest.mark.parametrize(("depth", "color"), [(8, 0), (8, 3), (4, 3), (2, 3), (1, 3)])
    def test_too_few_rows_are_refused(self, depth, color, missing, library, monkeypatch):
        if library == "fallback":
            monkeypatch.setattr(decode, "decode_image_png_u8", None)
        assert decode_label(png(depth, color, 30, 30), "x").shape == (30, 40)
        with pytest.raises(ValueError, match=r"some/image\.x: cannot be decoded") as error:
            decode_label(png(depth, color, 30, 30 - missing), "some/image.x")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("read", [decode_label, decode_image])
    def test_what_is_no_image_is_said_in_words(self, read):
        told = r"^a\.jpg: cannot be decoded \(5 bytes; no format that can be identified\): the file"
        with pytest.raises(ValueError, match=told):
            read(b"notes", "a.jpg")

    @pytest.mark.parametrize("depth", [8, 4, 2, 1])
    def test_every_depth_of_a_palette_gives_its_indices(self, depth):
        data = png(depth, 3, 30, 30)
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert expected.max() == 2**depth - 1
        assert np.array_equal(decode_label(data, "x"), expected)


@pytest.mark.parametrize(
    ("depth", "color"), [(8, 0), (8, 2), (8, 3), (4, 3), (1, 0), (16, 0), (16, 2), (8, 4), (8, 6)]
)
def test_images_with_too_few_rows_are_refused(depth, color):
    bit_depth = depth if depth == 16 else 8
    for rows in (29, 15, 1):
        with pytest.raises(ValueError, match=r"some/image\.x: "):
            decode_image(png(depth, color, 30, rows), "some/image.x", bit_depth=bit_depth)


def png(depth, color, height, rows, width=40):
    """Write a PNG that says it has `height` rows, and holds `rows`."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    rng = np.random.default_rng(0)
    row = (width * depth * channels + 7) // 8
    raw = b"".join(b"\0" + rng.integers(0, 256, row, np.uint8).tobytes() for _ in range(rows))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if color == 3:
        chunks.append((b"PLTE", rng.integers(0, 256, 3 * 2**depth, np.uint8).tobytes()))
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )

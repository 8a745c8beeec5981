"""Decode images and labels, with errors that name the file.

PNG goes through kornia-rs where it is installed: the same pixels in a third of OpenCV's time.
"""

import struct
import zlib
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:
    decode_image_png_u8 = None

# 128 megapixels: no data set comes near, and a damaged header cannot ask for all the memory.
MAX_PIXELS = 2**27

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE = 0, 2, 3  # PNG colour types


REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

# Pillow's names of what OpenCV turns into BGR as Pillow does; with alpha, where nothing shows it.
OPAQUE_MODES = ("1", "L", "P", "RGB")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# Not JPEG2000, whose colours OpenCV does not always convert.
FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "WEBP", "GIF", "PPM", "AVIF")
#: How the names of their files end.
EXTENSIONS = frozenset({
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pnm",
    ".avif",
})  # fmt: skip
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point"}
ORIENTATION = 0x0112  # the tag, in EXIF and in TIFF


class Header(NamedTuple):
    """What the first bytes of a file say: size in pixels and how pixels are stored."""

    height: int
    width: int
    png_depth: int | None = None
    png_color: int | None = None
    mode: str | None = None  # Pillow's, not for PNG


def read_header(data: bytes, name: str) -> Header:
    """Read the size of an image without decoding it.

    Args:
        data: The bytes of the file.
        name: Path of the file, for errors.

    Raises:
        ValueError: If the bytes are no image.
    """
    if data.startswith(PNG_SIGNATURE) and len(data) >= 33 and data[12:16] == b"IHDR":
        width, height, depth, color = struct.unpack(">IIBB", data[16:26])
        if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
            # Decoders notice too, after they have filled the memory that a wrong size asks for.
            raise _damaged(name, len(data), "wrong checksum of the header")
        header = Header(height, width, depth, color)
    else:
        try:
            with Image.open(BytesIO(data)) as image:
                header = Header(image.height, image.width, mode=image.mode)
        except Exception as error:  # Pillow's readers raise many types on damaged bytes
            numbers = _tiff_numbers(data) if isinstance(error, UnidentifiedImageError) else None
            if numbers is not None:
                raise ValueError(
                    f"{name}: a TIFF with {numbers}, which cannot be read; export it again with 8 "
                    "bits and as gray or RGB, a label as gray"
                ) from None
            raise _damaged(name, len(data), error) from None
    if not 0 < header.height * header.width <= MAX_PIXELS:
        raise _damaged(name, len(data), f"its header says {header.width} x {header.height} pixels")
    return header


def _tiff_numbers(data: bytes) -> str | None:
    """Say what the tags of a TIFF call its pixels; None where it is no TIFF, or a damaged one."""
    if not data.startswith(TIFF_SIGNATURES):
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8] if b"*" in data[:4] else data[:16])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits = set(tags[TiffImagePlugin.BITSPERSAMPLE])
        kinds = {_TIFF_KINDS.get(k, "") for k in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))}
        bands = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    except Exception:  # damaged tags raise many types
        return None
    sizes = " or ".join(f"{size}-bit" for size in sorted(bits))
    many = "band" if bands == 1 else "bands"
    return f"{bands} {many} of {sizes} {' or '.join(sorted(kinds))} numbers".replace("  ", " ")


def reduction(data: bytes, factor: float) -> int:
    """Return the largest reduction in decoding that keeps all that a resize by `factor` shows.

    Only JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, by fewer terms of each block's cosine
    transform; other files give 1.
    """
    if not data.startswith(b"\xff\xd8"):
        return 1
    return max(d for d in (1, 2, 4, 8) if d == 1 or d * factor <= 1)


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of an image: 1 for one that is shown as it is stored.

    And for one whose EXIF is damaged: decoders that ignore it read the image all the same.
    """
    if data.startswith(PNG_SIGNATURE) and b"eXIf" not in data:
        return 1  # Pillow would decode all of it to know
    try:
        with Image.open(BytesIO(data)) as image:
            return image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's readers raise many types on damaged bytes
        return 1


def decode_image(data: bytes, name: str, reduce: int = 1, bit_depth: int = 8) -> np.ndarray:
    """Decode an image.

    The EXIF orientation is ignored: labels are drawn on the pixels as stored.

    Args:
        data: The bytes of the file.
        name: Path of the file, for errors.
        reduce: What `reduction` returned: a JPEG is decoded at 1/reduce, sides rounded up.
        bit_depth: Bits that values use. Above 8, the file has to hold 16-bit integers, and
            0 to 2**bit_depth - 1 becomes 0 to 255.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: If the file is empty, truncated, damaged or no image, or holds anything but
            8-bit gray or colours: other numbers, CMYK, transparent pixels, several pages.
    """
    header = read_header(data, name)
    png = header.png_depth is not None
    if png:
        plain = header.png_depth <= 8 and header.png_color in (GRAY, RGB, PALETTE)
        plain = plain and not _is_transparent(data)
    else:
        plain = data.startswith(b"\xff\xd8") and header.mode in ("L", "RGB")
    try:
        if not plain or bit_depth != 8:
            image = _decode_unusual(data, bit_depth)
        elif decode_image_png_u8 is not None and (header.png_depth, header.png_color) == (8, RGB):
            rgb = decode_image_png_u8(data, header[:2], "rgb")
            image = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        else:
            if png:
                _check_chunks(data)
            flag = REDUCED[reduce] | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except _UnsupportedError as error:
        raise ValueError(f"{name}: {error}") from None
    except Exception as error:  # cv2.error, and plain Exception from kornia-rs
        raise _damaged(name, len(data), error) from None
    if image is None:
        raise _damaged(name, len(data), "the decoder returns nothing")
    return image


class _UnsupportedError(ValueError):
    """A sound file whose pixels would be read wrongly."""


def _decode_unusual(data: bytes, bit_depth: int) -> np.ndarray | None:
    """Decode what is neither JPEG nor plain 8-bit PNG, and look at what the file holds."""
    wanted = "an image must hold 8-bit gray or RGB"
    with Image.open(BytesIO(data)) as image:
        mode = image.mode
        if image.format not in FORMATS:
            raise _UnsupportedError(f"an image of the format {image.format}; export it as PNG")
        _refuse_pages_and_turns(image)
        if mode in ALPHA_MODES or "transparency" in image.info:
            if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise _UnsupportedError(
                    f"{wanted}, this one has transparent pixels (mode {mode}), whose colour is "
                    "arbitrary; export it on a background, without alpha"
                )
        elif mode not in (*OPAQUE_MODES, "I", "F") and not mode.startswith("I;16"):
            raise _UnsupportedError(f"{wanted}, this one has mode {mode}; export it again as RGB")
    if data.startswith(PNG_SIGNATURE):
        _check_chunks(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        return None
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _UnsupportedError(
            f"{wanted}, this one has {pixels.dtype} numbers (mode {mode}); scale them to 0-255 and "
            "export it again as 8-bit"
        )
    pixels = pixels if pixels.ndim == 2 else pixels[..., :3]  # what alpha there is hides nothing
    if pixels.dtype == np.uint16 and bit_depth == 8:
        raise _UnsupportedError(
            f"{wanted}, this one has 16-bit numbers (mode {mode}, largest value {pixels.max()}); "
            "set bit_depth of the dataset to the bits that the values use, for example "
            "bit_depth=12, or export it again as 8-bit"
        )
    if bit_depth != 8:
        pixels = rescale(pixels, mode, bit_depth)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(pixels)


def rescale(pixels: np.ndarray, mode: str, bit_depth: int) -> np.ndarray:
    """Map 0 to 2**bit_depth - 1 to 0 to 255, rounded.

    Args:
        pixels: uint16, of any shape.
        mode: What the image is called in messages.
        bit_depth: 9 to 16.

    Raises:
        ValueError: If it is of another type, or a value is larger.
    """
    if pixels.dtype != np.uint16:
        raise _UnsupportedError(
            f"bit_depth={bit_depth} was stated, this image has 8-bit numbers (mode {mode}); leave "
            "bit_depth out, or separate the two kinds of images"
        )
    top = 2**bit_depth - 1
    if pixels.max() > top:
        raise _UnsupportedError(
            f"bit_depth={bit_depth} was stated, but there is a value of {pixels.max()}, above "
            f"{top}; correct bit_depth"
        )
    return ((np.arange(top + 1) * 510 + top) // (2 * top)).astype(np.uint8)[pixels]


def _refuse_pages_and_turns(image: Image.Image) -> None:
    """Refuse several pages, and a TIFF that decoders turn whatever they are told."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a photo, and small copies of it
        raise _UnsupportedError(
            f"the file holds {pages} pages or frames; export the one that is meant"
        )
    if image.format == "TIFF" and image.tag_v2.get(ORIENTATION, 1) != 1:
        raise _UnsupportedError(
            f"a TIFF with orientation {image.tag_v2[ORIENTATION]}, which programs read "
            "differently; turn its pixels and export it again"
        )


def decode_label(data: bytes, name: str) -> np.ndarray:
    """Decode a label map: the stored numbers, of a palette image the indices.

    Args:
        data: The bytes of the file.
        name: Path of the file, for errors.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: If the file is damaged, stores colours or 16-bit numbers, or is compressed with
            losses.
    """
    header = read_header(data, name)
    try:
        single = header.png_depth == 8 and header.png_color in (GRAY, PALETTE)
        if single and decode_image_png_u8 is not None:
            return decode_image_png_u8(data, header[:2], "mono")[..., 0]
        with Image.open(BytesIO(data)) as image:
            _refuse_losses(image)
            _refuse_pages_and_turns(image)
            # Pillow stretches 1, 2 and 4-bit gray to 0-255, but leaves palette indices alone.
            stretched = header.png_color == GRAY and header.png_depth < 8
            if image.mode not in ("L", "P") or stretched:
                raise _UnsupportedError(
                    "a label must hold one 8-bit class index per pixel (Pillow mode L or P), this "
                    f"file has mode {header.png_depth if stretched else image.mode}; export it "
                    "again as an 8-bit gray or palette PNG"
                )
            label = np.asarray(image)
        # Pillow fills in rows that are missing, OpenCV refuses them, but knows no palette indices.
        if header.png_depth is not None and not _is_whole(data):
            raise ValueError("fewer rows than its header says")
    except _UnsupportedError as error:
        raise ValueError(f"{name}: {error}") from None
    except Exception as error:
        raise _damaged(name, len(data), error) from None
    return label


def _refuse_losses(image: Image.Image) -> None:
    kind = image.format
    if kind == "TIFF" and image.info.get("compression") in LOSSY_TIFF:
        kind = f"TIFF with {image.info['compression']} compression"
    if kind in LOSSY_FORMATS or kind.startswith("TIFF with"):
        raise _UnsupportedError(
            f"a label must hold one 8-bit class index per pixel, this file is {kind}, which "
            "changes values; make it again from its source as an 8-bit gray or palette PNG"
        )


def _is_whole(data: bytes) -> bool:
    _check_chunks(data)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None


def _is_transparent(data: bytes) -> bool:
    """Return whether a PNG gives transparent colours or values in front of its pixels."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind in (b"IDAT", b"tRNS"):
            return kind == b"tRNS"
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG whose parts reach beyond its end: OpenCV makes room for what they announce."""
    at = len(PNG_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            raise ValueError(f"truncated in {kind!r}")
        if kind == b"IEND":
            break


def _damaged(name: str, size: int, reason: object) -> ValueError:
    if isinstance(reason, UnidentifiedImageError):
        reason = "no format that can be identified"  # its own message shows an object in memory
    reason = " ".join(str(reason).split())[:200]
    return ValueError(
        f"{name}: cannot be decoded ({size} bytes; {reason}): the file is damaged or of another "
        "type, download or export it again"
    )

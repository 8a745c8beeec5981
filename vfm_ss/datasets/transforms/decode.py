"""Decode images and labels, with errors that name the file.

PNG goes through kornia-rs where it is installed: the same pixels in a third of OpenCV's time.
"""

import struct
import zlib
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:
    decode_image_png_u8 = None

# 128 megapixels: no data set comes near, and a damaged header cannot ask for all the memory.
MAX_PIXELS = 2**27

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE = 0, 2, 3  # PNG colour types


class Header(NamedTuple):
    """What the first bytes of a file say: size in pixels and, for PNG, how pixels are stored."""

    height: int
    width: int
    png_depth: int | None = None
    png_color: int | None = None


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
                header = Header(image.height, image.width)
        except Exception as error:  # Pillow's readers raise many types on damaged bytes
            raise _damaged(name, len(data), error) from None
    if not 0 < header.height * header.width <= MAX_PIXELS:
        raise _damaged(name, len(data), f"its header says {header.width} x {header.height} pixels")
    return header


def reduction(data: bytes, factor: float) -> int:
    """Return the largest reduction in decoding that keeps all that a resize by `factor` shows.

    Only JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, by fewer terms of each block's cosine
    transform; other files give 1.
    """
    if not data.startswith(b"\xff\xd8"):
        return 1
    return max(d for d in (1, 2, 4, 8) if d == 1 or d * factor <= 1)


def decode_image(data: bytes, name: str, reduce: int = 1) -> np.ndarray:
    """Decode an image.

    The EXIF orientation is ignored: labels are drawn on the pixels as stored.

    Args:
        data: The bytes of the file.
        name: Path of the file, for errors.
        reduce: What `reduction` returned: a JPEG is decoded at 1/reduce, sides rounded up.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: If the file is empty, truncated, damaged or no image.
    """
    header = read_header(data, name)
    plain_png = (header.png_depth, header.png_color) == (8, RGB)
    try:
        if plain_png and decode_image_png_u8 is not None:
            rgb = decode_image_png_u8(data, header[:2], "rgb")
            return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if header.png_depth is not None:
            _check_chunks(data)
        flag = {
            1: cv2.IMREAD_COLOR,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }[reduce]
        buffer = np.frombuffer(data, np.uint8)
        image = cv2.imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except Exception as error:  # cv2.error, and plain Exception from kornia-rs
        raise _damaged(name, len(data), error) from None
    if image is None:
        raise _damaged(name, len(data), "the decoder gives up")
    return image


def decode_label(data: bytes, name: str) -> np.ndarray:
    """Decode a label map: the stored numbers, of a palette image the indices.

    Args:
        data: The bytes of the file.
        name: Path of the file, for errors.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: If the file is damaged, or stores colours or 16-bit numbers.
    """
    header = read_header(data, name)
    try:
        single = header.png_depth == 8 and header.png_color in (GRAY, PALETTE)
        if single and decode_image_png_u8 is not None:
            return decode_image_png_u8(data, header[:2], "mono")[..., 0]
        with Image.open(BytesIO(data)) as image:
            # Pillow stretches 1, 2 and 4-bit gray to 0-255, but leaves palette indices alone.
            stretched = header.png_color == GRAY and header.png_depth < 8
            if image.mode not in ("L", "P") or stretched:
                depth = header.png_depth if stretched else image.mode
                raise TypeError(depth)
            return np.asarray(image)
    except TypeError as error:
        raise ValueError(
            f"{name}: a label must hold one 8-bit class index per pixel (Pillow mode L or P), "
            f"this file has mode {error}; export it again as an 8-bit gray or palette PNG"
        ) from None
    except Exception as error:
        raise _damaged(name, len(data), error) from None


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
    reason = " ".join(str(reason).split())[:200]
    return ValueError(
        f"{name}: cannot be decoded ({size} bytes; {reason}): the file is damaged or of another "
        "type, download or export it again"
    )

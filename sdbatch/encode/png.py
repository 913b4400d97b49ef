"""Writes a picture as PNG, in a third of the time that Pillow takes and in fewer bytes.

    image_HWC --> each byte less the mean of those to its left and above --> deflate by runs --> chunks

Pillow tries five filters for every row and then looks for repetitions that pictures do not have. One filter that suits
pictures, and a deflate that looks for runs of one byte alone, leave out both. `benchmarks/NOTES.md` has the figures.
"""

# H and W pixels, C = 3 channels.

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MARK: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = struct.Struct(">IIBBBBB")
_BITS, _RGB = 8, 2
_AVERAGE: Final = 3
"""PNG's number of the filter."""

_STRIP_BYTES: Final = 1 << 18
"""Bytes that are filtered at a time, so that they are still in the processor's cache when they are deflated."""


def encode_png(image_HWC: NDArray[np.uint8], texts: Iterable[tuple[str, str]]) -> bytes:
    """Return a picture as a PNG file.

    Args:
        image_HWC: uint8, RGB.
        texts: Keyword and text of each text chunk; they stand before the pixels.
    """
    height, width, _ = image_HWC.shape
    header = _HEADER.pack(width, height, _BITS, _RGB, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *(_text_chunk(*text) for text in texts),
        (b"IDAT", _deflated(image_HWC)),
        (b"IEND", b""),
    ]
    return _MARK + b"".join(part for kind, data in chunks for part in _framed(kind, data))


def _deflated(image_HWC: NDArray[np.uint8]) -> bytes:
    height, width, channels = image_HWC.shape
    rows = np.ascontiguousarray(image_HWC).reshape(height, width * channels)
    num_rows = max(1, _STRIP_BYTES // (width * channels))
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    above = np.zeros((1, width * channels), np.uint8)
    parts = []
    for start in range(0, height, num_rows):
        strip = rows[start : start + num_rows]
        parts.append(deflate.compress(_filtered(strip, above, channels).data))
        above = strip[-1:]
    return b"".join([*parts, deflate.flush()])


def _filtered(strip: NDArray[np.uint8], above: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return rows with the number of the filter before each, less what PNG's filter `Average` foresees."""
    upper = np.concatenate([above, strip[:-1]])
    left = np.zeros_like(strip)
    left[:, channels:] = strip[:, :-channels]
    means = (left & upper) + ((left ^ upper) >> 1)  # of bytes, rounded down, without a wider type
    filtered = np.empty((len(strip), 1 + strip.shape[1]), np.uint8)
    filtered[:, 0] = _AVERAGE
    np.subtract(strip, means, out=filtered[:, 1:])
    return filtered


def _text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Return an iTXt chunk, uncompressed, without language."""
    return b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()


def _framed(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)

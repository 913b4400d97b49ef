"""What a PNG says beside its pixels, read chunk by chunk before Pillow sees the file.

    bytes --> read_png() --> a file without texts and profile (for Pillow), and PngColour

Pillow refuses a PNG whose texts or profile unpack to more than 1 MiB, as workflows of ComfyUI and profiles of printers
do. Nothing of a text is needed here but the orientation, and the profile is unpacked here within a bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sdbatch.fetch.picture_formats import Refused

MARK: Final = b"\x89PNG\r\n\x1a\n"
PROFILE_BYTES_MAX: Final = 32 << 20
"""Bytes of a colour profile, unpacked; the largest that printers use have some 4 MB."""

TEXT_BYTES_MAX: Final = 1 << 20
_PARTS: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
"""Parts that decide a picture's pixels; each ends with its checksum."""
_RGB_OF_16_BITS: Final = b"\x10\x02"
"""How IHDR says that a picture has RGB of 16 bits a channel, without alpha."""
_DEPTH_PLACE: Final = slice(8, 10)
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED: Final = (b"Raw profile type exif", b"Raw profile type APP1")
"""Keywords of texts that may hold Exif, and in it the orientation; Pillow reads it from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PngColour:
    """What a PNG says of its colours.

    Attributes:
        cicp: Primaries, transfer, matrix and range by the numbers of ITU-T H.273; None without a cICP chunk.
        profile: ICC profile; empty bytes when it is there and cannot be unpacked, None when there is none.
        is_srgb: Whether it says that it is sRGB.
        gamma: Exponent by which its values were encoded, such as 0.45455; None when it does not say.
        chromaticities: x and y of white, red, green and blue; None when it does not say.
    """

    cicp: tuple[int, int, int, int] | None = None
    profile: bytes | None = None
    is_srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None


@dataclass(slots=True)
class _Reading:
    """What was read so far; see `PngColour`."""

    cicp: tuple[int, int, int, int] | None = None
    profile: bytes | None = None
    is_srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    depth_and_kind: bytes = b""
    left_out: list[tuple[int, int]] = field(default_factory=list)


def read_png(data: bytes) -> tuple[bytes, PngColour]:
    """Return the file without texts and profile, and what it says of its colours.

    Args:
        data: A PNG file, or its beginning.

    Raises:
        ValueError: When a part of its picture is not what was written, which Pillow (13.0) does not look at.
        Refused: When it has RGB of 16 bits with a transparent colour: Pillow (13.0) compares it with 8 of them.
    """
    reading = _Reading()
    for kind, start, stop in _chunks(data):
        if kind in _PARTS and zlib.crc32(memoryview(data)[start + 4 : stop - 4]) != _checksum(data, stop):
            raise ValueError(f"its part {kind.decode()} at byte {start} is damaged")
        body = data[start + 8 : stop - 4] if kind not in {b"IDAT", b"fdAT"} else b""
        match kind:
            case b"IHDR":
                reading.depth_and_kind = body[_DEPTH_PLACE]
            case b"tRNS" if reading.depth_and_kind == _RGB_OF_16_BITS:
                raise Refused(
                    "has 16 bits a channel and a transparent colour (tRNS), which is not read; save it with alpha"
                )
            case b"cICP" if len(body) == 4:
                reading.cicp = (body[0], body[1], body[2], body[3])
            case b"iCCP":
                reading.profile = _profile(body)
                reading.left_out.append((start, stop))
            case b"sRGB":
                reading.is_srgb = True
            case b"gAMA" if len(body) == 4:
                reading.gamma = struct.unpack(">I", body)[0] / 100_000
            case b"cHRM" if len(body) == 32:
                reading.chromaticities = tuple(value / 100_000 for value in struct.unpack(">8I", body))
            case _ if kind in _TEXTS and not _is_oriented(kind, body):
                reading.left_out.append((start, stop))
    colour = PngColour(
        cicp=reading.cicp,
        profile=reading.profile,
        is_srgb=reading.is_srgb,
        gamma=reading.gamma,
        chromaticities=reading.chromaticities,
    )
    return _without(data, reading.left_out), colour


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and stop of each whole chunk."""
    start = len(MARK)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        stop = start + 12 + length
        if stop > len(data):
            return
        yield kind, start, stop
        start = stop


def _checksum(data: bytes, stop: int) -> int:
    return int.from_bytes(data[stop - 4 : stop], "big")


def _profile(body: bytes) -> bytes:
    """Return the profile of an iCCP chunk; empty bytes when it is broken or over its bound."""
    _, _, packed = body.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], PROFILE_BYTES_MAX)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""


def _is_oriented(kind: bytes, body: bytes) -> bool:
    """Whether a text may hold the orientation and is within Pillow's own bound."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _ORIENTED or len(body) > TEXT_BYTES_MAX:
        return False
    packed = {b"tEXt": None, b"zTXt": rest[1:], b"iTXt": _packed_text(rest)}[kind]
    if packed is None:
        return True
    try:
        return len(zlib.decompressobj().decompress(packed, TEXT_BYTES_MAX)) < TEXT_BYTES_MAX
    except zlib.error:
        return False


def _packed_text(rest: bytes) -> bytes | None:
    """Return the compressed text of an iTXt chunk behind its keyword; None when it is not compressed."""
    if rest[:1] != b"\1":
        return None
    return rest[2:].split(b"\0", 2)[-1]


def _without(data: bytes, left_out: list[tuple[int, int]]) -> bytes:
    if not left_out:
        return data
    view = memoryview(data)
    starts = [0, *(stop for _, stop in left_out)]
    stops = [*(start for start, _ in left_out), len(data)]
    return b"".join(view[start:stop] for start, stop in zip(starts, stops, strict=True))

"""Which formats of pictures are read; no other decoder is tried.

first bytes --> picture_format() --> one of FORMATS
"""

from __future__ import annotations

import struct
from typing import Final

from sdbatch.fetch.boxes import brands, pixel_size
from sdbatch.fetch.marks import foreign_title, name_by_mark

FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "HEIC")
LISTED: Final = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
_MARKS: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
)
AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""Brands of ISO files (ISO/IEC 23000-22, 23008-12) that hold pictures."""
CHUNKS_MAX: Final = 1000
"""Chunks of a WebP among which its first frame is looked for; a file of empty ones would take long else."""
_RAW: Final = ((0, b"II*\0\x10\0\0\0CR\x02", "a camera raw"),)
"""A raw of Canon's (CR2), which is a TIFF as well."""
_FOREIGN: Final = (
    (0, b"8BPS", "a Photoshop (PSD)"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript"),
    (0, b"v/1\x01", "an OpenEXR"),
    (0, b"#?RADIANCE", "a Radiance HDR"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)"),
    (0, b"qoif", "a QOI"),
    (0, b"IIRO", "a camera raw"),
    (0, b"FUJIFILM", "a camera raw"),
    (4, b"ftypcrx", "a camera raw"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
)
"""Files that people take for pictures, by (offset, mark), and what they are."""


class Refused(ValueError):
    """A picture says of itself what is not read; the text goes on after its name."""


def picture_format(head: bytes) -> str:
    """Return which of `FORMATS` a file is, by its first bytes.

    Raises:
        Refused: When it is none, with what it is where that is known.
    """
    kind = name_by_mark(head, _MARKS)
    if kind is not None and not name_by_mark(head, _RAW):
        return kind
    named = set(brands(head))
    if named & AVIF_BRANDS:
        return "AVIF"
    if named & HEIC_BRANDS:
        return "HEIC"
    if title := foreign_title(head, (*_RAW, *_FOREIGN)):
        raise Refused(f"is {title} file; pictures are {LISTED}")
    raise Refused(f"not a picture of {LISTED}")


def stated_size(kind: str, head: bytes) -> tuple[int, int] | None:
    """Return width and height of a picture whose decoder would take memory for them before they can be looked at.

    Args:
        kind: One of `FORMATS`.
        head: Its beginning.

    Returns:
        None for other formats, and where the size is not stated.

    Raises:
        ValueError, struct.error: When the head is damaged.
    """
    match kind:
        case "PNG":
            width, height = struct.unpack_from(">2I", head, 16)
            return width, height
        case "WEBP":
            return _webp_size(head)
        case "AVIF" | "HEIC":
            return pixel_size(head)
    return None


def first_frame(webp: bytes) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of the first frame of an animated WebP; None for a still."""
    place = 12
    for _ in range(CHUNKS_MAX):
        if place + 20 > len(webp):
            break
        kind, size = struct.unpack_from("<4sI", webp, place)
        if kind == b"ANMF":
            left, top, width, height = (
                int.from_bytes(webp[at : at + 3], "little") for at in range(place + 8, place + 20, 3)
            )
            return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
        place += 8 + size + size % 2
    return None


def _webp_size(head: bytes) -> tuple[int, int]:
    match head[12:16]:
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<2H", head, 26)
            return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP chunk that is known")

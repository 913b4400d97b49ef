"""XMP packets: where each kind of file holds one, and how it is found again.

    Packet --> Pillow (PNG, JPEG, WebP, AVIF), a box at the end (MP4), tags (WebM)        bytes --> packet_in() --> XMP

Only places and bytes are known here; what a packet says is written in `provenance/xmp.py`. Finding one neither decodes
a picture nor starts a program, so that it is safe on files of strangers once their length is bounded.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from sdbatch.formats import CLIPS

PNG_KEYWORD: Final = "XML:com.adobe.xmp"
XMP_BOX: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Type of the uuid box that holds XMP in MP4 (Adobe, XMP specification part 3)."""
C2PA_BOX: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Type of the uuid box that holds content credentials in MP4 and AVIF."""
PACKET_BYTES_MAX: Final = 4 << 20
"""Longest packet that is read."""
PARTS_MAX: Final = 1 << 16
"""Most chunks, segments or boxes of a file that are looked at; Pillow's chunks are 64 KiB and more."""
JPEG_BYTES_MAX: Final = 65_502
"""Longest packet of a JPEG: a segment has 65,533 bytes, of which its name takes 29 and Pillow 13.0 keeps two back."""
WEBM_TAGS: Final = ("XMP", "DIGITAL_SOURCE_TYPE")
"""Tags of a WebM, which has no place for XMP of its own: a convention."""
_BRANDS: Final = {b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif"}
_JPEG_NAME: Final = b"http://ns.adobe.com/xap/1.0/\0"
_BEGIN, _END = b"<x:xmpmeta", b"</x:xmpmeta>"
_Part = TypeVar("_Part")
_SPECIAL: Final = re.compile(r"([=;#\\\n])")
_ESCAPED: Final = r"\\\1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One XMP packet.

    Attributes:
        data: Serialized, in UTF-8, on one line.
        source_type: Its digital source type, which stands beside it in a WebM.
    """

    data: bytes
    source_type: str


def uuid_box(packet: Packet) -> bytes:
    """Return the box that holds a packet in MP4. At the end of the file it moves nothing that others point to."""
    return struct.pack(">I4s16s", 24 + len(packet.data), b"uuid", XMP_BOX) + packet.data


def tags_of(packet: Packet | None, suffix: str) -> dict[str, str]:
    """Return the tags that hold a packet in a clip of some type; none where it has another place for it."""
    if packet is None or CLIPS[suffix].xmp_in != "tags":
        return {}
    return dict(zip(WEBM_TAGS, (packet.data.decode(), packet.source_type), strict=True))


def as_ffmetadata(tags: Mapping[str, str]) -> str:
    """Return tags in the form in which ffmpeg reads them from a file."""
    return ";FFMETADATA1\n" + "".join(f"{name}={_SPECIAL.sub(_ESCAPED, value)}\n" for name, value in tags.items())


def packet_in(data: bytes) -> bytes | None:
    """Return the XMP that a picture or a clip holds, None when it holds none.

    Args:
        data: Content of the file: PNG, JPEG, WebP, and whatever else holds its packet uncompressed.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        found = next((value for value in map(_png_text, _few(_png_chunks(data))) if value is not None), None)
    elif data.startswith(b"\xff\xd8"):
        segments = (
            body for marker, body in _few(_jpeg_segments(data)) if marker == 0xE1 and body.startswith(_JPEG_NAME)
        )
        found = next((body[len(_JPEG_NAME) :] for body in segments), None)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = next((body for name, body in _few(_riff_chunks(data)) if name == b"XMP "), None)
    elif data[4:8] == b"ftyp":
        boxes = (body for kind, body in _few(_top_boxes(data)) if kind == b"uuid" and body.startswith(XMP_BOX))
        found = next((body[16:] for body in boxes), None) or _anywhere(data)
    else:
        found = _anywhere(data)
    return found if found is None or len(found) <= PACKET_BYTES_MAX else None


def credentialed_type(data: bytes) -> str | None:
    """Return the media type of a file that holds content credentials (C2PA), None for one that holds none."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png" if any(kind == b"caBX" for kind, _ in _few(_png_chunks(data))) else None
    if data.startswith(b"\xff\xd8"):
        blocks = (body[:2] == b"JP" for marker, body in _few(_jpeg_segments(data)) if marker == 0xEB)
        return "image/jpeg" if any(blocks) else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp" if any(name == b"C2PA" for name, _ in _few(_riff_chunks(data))) else None
    if data[4:8] == b"ftyp" and any(kind == b"uuid" and body[:16] == C2PA_BOX for kind, body in _few(_top_boxes(data))):
        return _BRANDS.get(data[8:12], "video/mp4")
    return None


def _few(parts: Iterator[_Part]) -> Iterator[_Part]:
    """Return the first parts of a file: no file of a program has so many, and one of a stranger may have millions."""
    return islice(parts, PARTS_MAX)


def _anywhere(data: bytes) -> bytes | None:
    begin = data.find(_BEGIN)
    end = data.find(_END, begin, begin + PACKET_BYTES_MAX) if begin >= 0 else -1
    return data[begin : end + len(_END)] if end >= 0 else None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        yield kind, data[place + 8 : place + 8 + length] if kind == b"iTXt" else b""
        place += 12 + length
        if kind == b"IEND":
            return


def _png_text(chunk: tuple[bytes, bytes]) -> bytes | None:
    kind, body = chunk
    keyword = PNG_KEYWORD.encode() + b"\0"
    if kind != b"iTXt" or not body.startswith(keyword) or len(body) < len(keyword) + 2:
        return None
    is_packed, rest = body[len(keyword)] == 1, body[len(keyword) + 2 :]
    text = rest.split(b"\0", 2)[-1]  # behind the language and the translated keyword
    if not is_packed:
        return text
    try:
        return zlib.decompressobj().decompress(text, PACKET_BYTES_MAX + 1)
    except zlib.error:
        return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:  # the scan begins
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        name = data[place : place + 4]
        yield name, data[place + 8 : place + 8 + length] if name == b"XMP " else b""
        place += 8 + length + length % 2


def _top_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if length == 1 and place + 16 <= len(data):
            (length,), head = struct.unpack_from(">Q", data, place + 8), 16
        if length == 0:
            length = len(data) - place
        if length < head:
            return
        yield kind, data[place + head : place + length] if kind == b"uuid" else b""
        place += length

"""Which containers and decoders of clips are read; no other one is tried.

first bytes --> demuxer_of() --> ffmpeg's name of the container
"""

from __future__ import annotations

from typing import Final

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.marks import foreign_title, name_by_mark
from sdbatch.fetch.picture_formats import AVIF_BRANDS, HEIC_BRANDS

HEAD_BYTES: Final = 1024
"""Bytes at a file's beginning that tell its container."""

FORMATS: Final = "MP4, MOV, WebM, Matroska, AVI, MPEG-TS, MPEG-PS, MXF, DV or GIF"
DECODERS: Final = (
    "av1,cfhd,dnxhd,dvvideo,ffv1,gif,h264,hap,hevc,libdav1d,libvpx,libvpx-vp9,mjpeg,mpeg1video,mpeg2video,mpeg4,"
    "png,prores,qtrle,rawvideo,v210,vp8,vp9"
)
"""ffmpeg's decoders that a clip may need. Playlists and everything that reads other files or addresses are left out."""

CODECS: Final = frozenset(DECODERS.split(",")) - {"libdav1d", "libvpx", "libvpx-vp9"}

_MARKS: Final = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (4, b"pnot", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
    (0, b"\x1f\x07\x00", "dv"),
)
"""Containers by (offset, mark, ffmpeg's demuxer). Older QuickTime files begin with any of their boxes."""

_FOREIGN: Final = (
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media (ASF)"),
    (0, b"FLV", "a Flash (FLV)"),
    (0, b"OggS", "an Ogg"),
    (0, b"#EXTM3U", "a playlist"),
    (0, b"ffconcat", "a playlist"),
    (0, b"\x89PNG", "a PNG"),
    (0, b"\xff\xd8\xff", "a JPEG"),
    (8, b"WEBP", "a WebP"),
    *((4, b"ftyp" + brand, "an AVIF") for brand in AVIF_BRANDS),
    *((4, b"ftyp" + brand, "a HEIC") for brand in HEIC_BRANDS),
)
"""Files that people take for clips, by (offset, mark), and what they are. Of AVIF and HEIC ffmpeg reads a still."""
_TS_PACKETS: Final = ((0, 188), (4, 192))
"""Where the first packet of an MPEG-TS begins and how long each is; those of camcorders carry 4 bytes of time."""


def demuxer_of(head: bytes, name: str) -> str:
    """Return the demuxer of a clip.

    Args:
        head: Its first `HEAD_BYTES`, or all of it.
        name: Name of the source in messages.

    Raises:
        SourceUnreadable: When it is no container that is read.
    """
    if not name_by_mark(head, _FOREIGN):
        if demuxer := name_by_mark(head, _MARKS):
            return demuxer
        if head[:4] == b"RIFF" and head[8:11] == b"AVI":
            return "avi"
        if any(_is_transport_stream(head, start, length) for start, length in _TS_PACKETS):
            return "mpegts"
    if title := foreign_title(head, _FOREIGN):
        raise SourceUnreadable(f"{name}: is {title} file, not an MP4, WebM or GIF file; clips are {FORMATS}")
    raise SourceUnreadable(f"{name}: not an MP4, WebM or GIF file, nor one of {FORMATS}")


def _is_transport_stream(head: bytes, start: int, length: int) -> bool:
    """Whether every packet begins with the byte 0x47; at least two of them must."""
    places = range(start, len(head), length)
    return len(places) > 1 and all(head[place] == 0x47 for place in places)

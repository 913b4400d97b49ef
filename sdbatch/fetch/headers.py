"""What a source says of itself that a run would refuse, read from its head and without unpacking a pixel.

    file or its beginning --> picture_fault(), clip_fault() --> a message that goes on after the source's name, or None

`check` asks this of every local source, some 10,000 of them in seconds.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from sdbatch.errors import RowError
from sdbatch.fetch.boxes import nclx
from sdbatch.fetch.clip_colour import refuse_unread
from sdbatch.fetch.clip_header import read_header
from sdbatch.fetch.containers import demuxer_of
from sdbatch.fetch.openers import heif_library, open_tiff, png_profile, profile_of_cicp
from sdbatch.fetch.opening import BROKEN, broken_text, refuse_misread
from sdbatch.fetch.picture_formats import Refused, picture_format, stated_size
from sdbatch.fetch.png import read_png
from sdbatch.ffmpeg import FfmpegFailed

HEAD_BYTES: Final = 256 << 10
"""Bytes at the beginning of a source that tell most of it; an index of a clip or a TIFF may stand behind them."""

_PILLOW: Final[dict[str, Callable[[BinaryIO], Image.Image]]] = {
    "JPEG": JpegImageFile,
    "TIFF": open_tiff,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}


def picture_fault(head: bytes, file: BinaryIO | None, pixels_max: int) -> str | None:
    """Return why a picture would be refused, None when nothing speaks against it.

    Args:
        head: Its first `HEAD_BYTES`, or all of it.
        file: All of it, for formats whose header may stand anywhere; None where only the head is at hand.
        pixels_max: Most pixels, height times width.
    """
    if not head:
        return "is empty"
    try:
        kind = picture_format(head)
        size = _size(kind, head, file or io.BytesIO(head))
    except Refused as error:
        return str(error)
    except BROKEN as error:
        return None if file is None else broken_text(error)
    if size is not None and size[0] * size[1] > pixels_max:
        return f"{size[0]} x {size[1]} pixels are over {pixels_max} (sources.pixels_max)"
    return None


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that a picture states, None when it states none that can be read.

    What it says of its colours is not looked at.
    """
    try:
        return _stated_size(picture_format(data), data, io.BytesIO(data))
    except BROKEN:
        return None


def clip_fault(file: Path, name: str, pixels_max: int, *, is_whole: bool = True) -> str | None:
    """Return why a clip would be refused, None when nothing speaks against it.

    Args:
        file: The clip, or its beginning.
        name: Its name, which the message goes on after.
        pixels_max: Most pixels of a frame.
        is_whole: Whether the file is all of it; an index that is missing is no fault otherwise.
    """
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
        if not head:
            return "is empty"
        demuxer = demuxer_of(head[:1024], name)
    except RowError as error:
        return _after(name, error)
    try:
        header = read_header(file, demuxer, name, pixels_max)
    except (RowError, FfmpegFailed) as error:
        return _after(name, error) if is_whole else None
    try:
        refuse_unread(header, name)
    except RowError as error:
        return _after(name, error)
    if header.width * header.height > pixels_max:
        return f"{header.width} x {header.height} pixels are over {pixels_max} (sources.pixels_max)"
    return None


def clip_head_fault(head: bytes, name: str, pixels_max: int) -> str | None:
    """Return why a clip of which only the beginning is at hand would be refused."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as folder:
        file = Path(folder) / "head"
        file.write_bytes(head)
        return clip_fault(file, name, pixels_max, is_whole=len(head) < HEAD_BYTES)


def _after(name: str, error: Exception) -> str:
    return str(error).removeprefix(f"{name}: ")


def _size(kind: str, head: bytes, file: BinaryIO) -> tuple[int, int] | None:
    """Return what a picture states as its size, and refuse what it says of its colours."""
    match kind:
        case "PNG":
            png_profile(read_png(head)[1])
        case "AVIF" | "HEIC":
            if kind == "HEIC":
                heif_library()
            if (numbers := nclx(head)) is not None and b"prof" not in head:
                profile_of_cicp(numbers, is_rgb=False)
    return _stated_size(kind, head, file)


def _stated_size(kind: str, head: bytes, file: BinaryIO) -> tuple[int, int] | None:
    if kind not in _PILLOW:
        return stated_size(kind, head)
    file.seek(0)
    image = _PILLOW[kind](file)
    refuse_misread(image)
    return image.size

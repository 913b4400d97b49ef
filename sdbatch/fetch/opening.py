"""Opens a picture, and unpacks it to 8 bits a channel.

    bytes --> open_picture() --> Opened --> load_picture() --> upright picture, in its own mode and colours

What a file says of itself and cannot be honoured is refused by name.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch import jpeg
from sdbatch.fetch.boxes import find_boxes
from sdbatch.fetch.openers import OPENERS, Opened
from sdbatch.fetch.picture_formats import LISTED, Refused, picture_format, stated_size

BROKEN: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged files."""
ZEROS_MAX: Final = 1024
PIXELS_A_ZERO: Final = 5000
"""Zeros that no picture ends in: of a white WebP they are one for 10,000 pixels, of an AVIF or HEIC 16 in all."""

_XMP_TURN: Final = re.compile(rb"tiff:Orientation(?:=[\"']|>)[2-8]")
_TURNED_BY_XMP: Final = (
    "its XMP alone says that it is turned, which browsers do not look at, so that it was taken as it lies"
)


def open_picture(data: bytes, name: str, pixels_max: int) -> Opened:
    """Read a picture's header.

    Args:
        data: Content of the file.
        name: Name of the source in messages.
        pixels_max: Most pixels, height times width.

    Raises:
        SourceUnreadable: When it is of no format that is read, or says of itself what is not honoured.
        SourceTooLarge: When it has more pixels.
    """
    try:
        kind = picture_format(data)
        size = stated_size(kind, data)
        _refuse_large(size, name, pixels_max)
        _refuse_zeros(kind, data, size)
        opened = OPENERS[kind](data)
    except Refused as error:
        raise SourceUnreadable(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise SourceTooLarge(f"{name}: {error}") from error
    except BROKEN as error:
        raise _unreadable(name, error) from error
    _refuse_large(opened.image.size, name, pixels_max)
    num_frames = getattr(opened.image, "n_frames", 1)
    if num_frames > 1 and kind != "HEIC":  # the other pictures of a HEIC are no frames
        opened.notes.append(f"it has {num_frames} frames, of which the first was taken")
    return opened


def lift_bounds_of_pillow() -> None:
    """Take away Pillow's own bound on pixels, which its WebP and TIFF still keep; for a process that is ours alone."""
    Image.MAX_IMAGE_PIXELS = None


def _refuse_large(size: tuple[int, int] | None, name: str, pixels_max: int) -> None:
    if size is not None and size[0] * size[1] > pixels_max:
        raise SourceTooLarge(f"{name}: {size[0]} x {size[1]} pixels are over {pixels_max}")


def _refuse_zeros(kind: str, data: bytes, size: tuple[int, int] | None) -> None:
    """Refuse a picture that ends in zeros, as a download does that broke off; these decoders take them for pixels."""
    if kind == "WEBP":
        coded = [memoryview(data)[: 8 + int.from_bytes(data[4:8], "little")]]
    else:
        coded = list(find_boxes(data, b"mdat")) if kind in {"AVIF", "HEIC"} else []
    most = ZEROS_MAX + (size[0] * size[1] // PIXELS_A_ZERO if size else 0)
    if any(part[-most:] == bytes(most) for part in coded):
        raise Refused(f"is cut off: the last {most} bytes of its picture are zeros")


def load_picture(opened: Opened, name: str) -> Image.Image:
    """Unpack a picture's pixels: upright, first frame, 8 bits a channel.

    Exif or the container say how it is to be turned, as for browsers; Pillow would ask XMP where they say nothing.

    Args:
        opened: The picture, which receives further notes.
        name: Name of the source in messages.

    Raises:
        SourceUnreadable: When the file is not whole, or of a kind that 8 bits cannot stand for.
    """
    try:
        image = opened.image
        opened.notes += [_TURNED_BY_XMP] if _is_turned_by_xmp_alone(image) else []
        if isinstance(image, JpegImageFile):
            image, note = jpeg.load(image, opened.data)
            opened.notes += [note] if note else []
        image.load()
        image = _eight_bits(image) if opened.frame is None else _on_its_canvas(image, opened.frame)
        ImageOps.exif_transpose(image, in_place=True)
    except Refused as error:
        raise SourceUnreadable(f"{name}: {error}") from error
    except BROKEN as error:
        raise _unreadable(name, error) from error
    return image


def _on_its_canvas(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """Return a picture of which only a part is painted, with the rest transparent."""
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(frame).convert("RGBA"), frame)
    return canvas


def _is_turned_by_xmp_alone(image: Image.Image) -> bool:
    """Whether XMP says that a picture is turned, and nothing else does; afterwards Pillow does not see it either."""
    xmp = image.xmp if isinstance(image, jpeg.Jpeg) else image.info.pop("xmp", b"")
    is_turned = isinstance(xmp, bytes) and _XMP_TURN.search(xmp)
    return bool(is_turned) and ExifTags.Base.Orientation not in image.getexif()


def refuse_misread(image: Image.Image) -> None:
    """Refuse a picture of a kind that would be read as another one.

    Raises:
        Refused: When it holds floating-point, signed or 32-bit values, which have no stated white; when it is a small
            copy of the file's picture; or when its channels lie apart in a way that Pillow (13.0) reads wrongly.
    """
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS, (16,))[0])
    if image.mode == "F":
        raise Refused("holds 32-bit floating-point values, which have no stated white; save it with 8 or 16 bits")
    if image.mode == "I" and (tags.get(_SAMPLE_FORMAT, (1,))[0] != 1 or bits > 16):
        raise Refused(f"holds signed or {bits}-bit values, which have no stated white; save it with 8 or 16 bits")
    if int(tags.get(_SUBFILE, 0)) & _IS_SMALL_COPY or _DNG in tags:
        raise Refused("has a small copy of its picture in front, as camera raws (DNG, NEF, ARW); export it as JPEG")
    is_apart = tags.get(_PLANES) == _APART and len(image.getbands()) > 1
    if is_apart and (image.mode == "LA" or (bits == 16 and tags.get(_COMPRESSION, 1) == 1)):
        raise Refused(f"has its channels one after the other, in {bits} bits, which is not read; save it interleaved")


_SUBFILE: Final = 254
_BITS: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_PLANES: Final = 284
_SAMPLE_FORMAT: Final = 339
_DNG: Final = 50706
"""Tags of TIFF: what the page is, bits a sample, whether 0 is white, whether channels are interleaved, whether samples
are unsigned, version of a DNG."""
_IS_SMALL_COPY: Final = 1
_APART: Final = 2


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture with 8 bits a channel; Pillow's own `convert` would clip at 255."""
    refuse_misread(image)
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})
    scaled = np.asarray(image, dtype=np.float64) * (255.0 / (2 ** int(tags.get(_BITS, (16,))[0]) - 1))
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0, which Pillow 13.0 turns in pictures of 8 bits and fewer alone
        scaled = 255.0 - scaled
    eight = Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    if isinstance(key := image.info.get("transparency"), int):
        opaque = np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
        eight = Image.merge("LA", [eight, Image.fromarray(opaque)])
    eight.info = {name: value for name, value in image.info.items() if name == "exif"}
    return eight


def broken_text(error: BaseException) -> str:
    """Return what is wrong with a damaged picture, by the error of its decoder; the text goes on after its name."""
    is_short = isinstance(error.__cause__ or error, EOFError | IndexError | struct.error)
    reason = "it ends too early" if is_short else str(error) or type(error).__name__
    return f"not a whole picture of {LISTED}: {reason}"


def _unreadable(name: str, error: BaseException) -> SourceUnreadable:
    return SourceUnreadable(f"{name}: {broken_text(error)}")

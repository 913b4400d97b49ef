"""Opens a picture, and unpacks it to 8 bits a channel.

    bytes --> open_picture() --> Opened --> load_picture() --> upright picture, in its own mode and colours

What a file says of itself and cannot be honoured is refused by name.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch import jpeg
from sdbatch.fetch.openers import OPENERS, Opened
from sdbatch.fetch.picture_formats import LISTED, Refused, picture_format

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
        opened = OPENERS[kind](data)
    except Refused as error:
        raise SourceUnreadable(f"{name}: {error}") from error
    except BROKEN as error:
        raise _unreadable(name, error) from error
    width, height = opened.image.size
    if width * height > pixels_max:
        raise SourceTooLarge(f"{name}: {width} x {height} pixels are over {pixels_max}")
    num_frames = getattr(opened.image, "n_frames", 1)
    if num_frames > 1 and kind != "HEIC":  # the other pictures of a HEIC are no frames
        opened.notes.append(f"it has {num_frames} frames, of which the first was taken")
    return opened


def load_picture(opened: Opened, name: str) -> Image.Image:
    """Unpack a picture's pixels: upright, first frame, 8 bits a channel.

    Args:
        opened: The picture, which receives further notes.
        name: Name of the source in messages.

    Raises:
        SourceUnreadable: When the file is not whole, or of a kind that 8 bits cannot stand for.
    """
    try:
        image = opened.image
        if isinstance(image, JpegImageFile):
            image, note = jpeg.load(image, opened.data)
            opened.notes += [note] if note else []
        image.load()
        return ImageOps.exif_transpose(_eight_bits(image))
    except Refused as error:
        raise SourceUnreadable(f"{name}: {error}") from error
    except BROKEN as error:
        raise _unreadable(name, error) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture with 8 bits a channel; Pillow's own `convert` would clip at 255."""
    if image.mode == "F":
        raise Refused("holds 32-bit floating-point values, which have no stated white")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, dtype=np.float64)
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(258, (16,))[0])
    if image.mode == "I" and (tags.get(339, (1,))[0] == 2 or bits > 16 or values.max() > 65535):
        raise Refused(f"holds signed or {bits}-bit values, which have no stated white")
    scaled = values * (255.0 / (2**bits - 1))
    if tags.get(262) == 0:  # white is 0, which Pillow 13.0 turns in pictures of 8 bits and fewer alone
        scaled = 255.0 - scaled
    eight = Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    if isinstance(key := image.info.get("transparency"), int):
        eight = Image.merge("LA", [eight, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))])
    eight.info = {key: value for key, value in image.info.items() if key in {"exif", "xmp"}}
    return eight


def _unreadable(name: str, error: BaseException) -> SourceUnreadable:
    return SourceUnreadable(f"{name}: not a whole picture of {LISTED}: {error or type(error).__name__}")

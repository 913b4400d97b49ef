"""A picture brought to exact pixels, and encoded under its byte cap.

    image (RGB, sRGB) + Placement --> fitted() --> image --> encoded() --> bytes, quality

Colours stay in sRGB; a file without a profile is that to every program. The same picture gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat, PngImagePlugin

from sdbatch.deliver.placing import Placement
from sdbatch.formats import PICTURES
from sdbatch.named_formats import NamedFormat
from sdbatch.packets import PNG_KEYWORD, Packet

STILLS_VERSION: Final = 1
"""Raised when the same settings give other pixels or bytes."""
REDUCING_GAP: Final = 3.0
"""A strong reduction begins with a box of a whole number of pixels; from 3 on the result looks the same."""

GRAY_SIDE: Final = 32

_SAVE: Final[Mapping[str, Mapping[str, Any]]] = {
    "png": {"compress_level": 6},
    "jpg": {"optimize": True},
    "webp": {"method": 4},
    "avif": {"speed": 6, "max_threads": 1},
}
_SMALLEST: Final[Mapping[str, Any]] = {"compress_level": 9}


class CapMissed(Exception):
    """A file does not come under its byte cap.

    Args:
        what: How long it is, and how it was encoded.
        cap: What its bytes may come to, without what later steps add.
        remedy: What to do.
    """

    def __init__(self, what: str, cap: int, remedy: str) -> None:
        super().__init__(what, cap, remedy)
        self._what, self._cap, self._remedy = what, cap, remedy

    def told(self, bytes_max: int) -> str:
        """Return it in words, with the bound of the format, of which marks and signature may take a part."""
        kept = f" and {bytes_max - self._cap} for marks and signature" if bytes_max > self._cap else ""
        return f"{self._what}{kept}, over {bytes_max}; {self._remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """A picture as a file.

    Attributes:
        data: The whole file.
        quality: With which it was encoded; None for a type that has none.
        num_encodings: How often it was encoded.
    """

    data: bytes
    quality: int | None
    num_encodings: int


def fitted(
    image: Image.Image, placement: Placement, size: tuple[int, int], fit: str, bars: tuple[int, int, int]
) -> Image.Image:
    """Return a picture of exactly a size.

    Args:
        image: RGB.
        placement: From `placed`.
        size: Width and height.
        fit: `contain` lays it on its mean colour, `letterbox` between bars.
        bars: Their colour.
    """
    inner = (placement.width, placement.height)
    whole = (0.0, 0.0, float(image.width), float(image.height))
    if inner == image.size and placement.box == whole:
        shown = image
    else:
        shown = image.resize(inner, Image.Resampling.LANCZOS, box=placement.box, reducing_gap=REDUCING_GAP)
    if inner == size:
        return shown
    ground = bars
    if fit == "contain":
        red, green, blue = (round(value) for value in ImageStat.Stat(image).mean)
        ground = (red, green, blue)
    canvas = Image.new("RGB", size, ground)
    canvas.paste(shown, (placement.left, placement.top))
    return canvas


def encoded(
    image: Image.Image, one: NamedFormat, least: int, most: int, reserved_bytes: int = 0, xmp: Packet | None = None
) -> Still:
    """Encode a picture with the best quality that keeps it under its cap.

    Args:
        image: RGB, of the format's size.
        one: The format.
        least: Lowest quality that is taken.
        most: Quality where the cap allows it.
        reserved_bytes: What later steps add to the file.
        xmp: What the file says of itself.

    Raises:
        CapMissed: When not even the lowest quality is under the cap.
    """
    cap = None if one.bytes_max is None else one.bytes_max - reserved_bytes
    if "quality" not in PICTURES[one.type].options:
        return _lossless(image, one, cap, xmp)
    return _under(lambda quality: _saved(image, one, xmp, quality=quality), cap, least, most)


def small_gray(image: Image.Image) -> NDArray[np.uint8]:
    """Return gray_HW of 32 x 32, from which a picture's fingerprint is taken."""
    small = image.convert("L").resize((GRAY_SIDE, GRAY_SIDE), Image.Resampling.BOX, reducing_gap=REDUCING_GAP)
    return np.asarray(small, dtype=np.uint8)


def _lossless(image: Image.Image, one: NamedFormat, cap: int | None, xmp: Packet | None) -> Still:
    data, count = _saved(image, one, xmp), 1
    if cap is not None and len(data) > cap:
        data, count = _saved(image, one, xmp, **_SMALLEST), 2
        if len(data) > cap:
            raise CapMissed(f"has {len(data)} bytes", cap, f"{one.type} has no quality to lower: ask for jpg or webp")
    return Still(data=data, quality=None, num_encodings=count)


def _under(save: Callable[[int], bytes], cap: int | None, least: int, most: int) -> Still:
    """Bisect the quality: the best one whose file is under the cap."""
    data, count = save(most), 1
    if cap is None or len(data) <= cap:
        return Still(data=data, quality=most, num_encodings=count)
    data, count = save(least), 2
    if len(data) > cap:
        raise CapMissed(f"has {len(data)} bytes at quality {least}", cap, "lower quality.least or raise bytes_max")
    best, fails = least, most
    while fails - best > 1:
        middle = (best + fails) // 2
        tried, count = save(middle), count + 1
        if len(tried) <= cap:
            best, data = middle, tried
        else:
            fails = middle
    return Still(data=data, quality=best, num_encodings=count)


def _saved(image: Image.Image, one: NamedFormat, xmp: Packet | None, **arguments: Any) -> bytes:
    buffer = io.BytesIO()
    density = {} if one.dpi is None else {"dpi": (one.dpi, one.dpi)}
    settings = {**_SAVE[one.type], **_marked(one.type, xmp), **density, **arguments}
    image.save(buffer, PICTURES[one.type].pillow, **settings)
    return buffer.getvalue()


def _marked(suffix: str, xmp: Packet | None) -> dict[str, Any]:
    """Return the arguments of `save` that put XMP into a file; for PNG, Pillow passes over `xmp` without a word."""
    if xmp is None:
        return {}
    if suffix != "png":
        return {"xmp": xmp.data}
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(PNG_KEYWORD, xmp.data.decode())
    return {"pnginfo": chunks}

"""Opens each format of pictures with its own decoder, and finds in which colours it is.

    bytes --> OPENERS[format]() --> Opened (nothing is unpacked yet)

Pillow's classes are asked by name: its `open` would hold a file to bounds of its own on top of the job's.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sdbatch.fetch.boxes import nclx
from sdbatch.fetch.jpeg import Jpeg
from sdbatch.fetch.picture_formats import Refused, first_frame
from sdbatch.fetch.png import PngColour, read_png
from sdbatch.fetch.profiles import ADOBE_RGB, PRIMARIES, SRGB, TRANSFER_NAMES, TRANSFERS, matrix_profile

GAMMA_SRGB: Final = 0.45455
"""What a PNG of sRGB states as its gamma."""

NEARLY: Final = 0.01

_PNG_DEPTH: Final = 24
"""Where a PNG says how many bits a channel has."""
ADOBE_RGB_EXPONENT: Final = 563 / 256
_BMP_V5_BYTES: Final = 124
_BMP_PROFILE_INSIDE: Final = 0x4D424544  # "MBED"
_BMP_PROFILE_OUTSIDE: Final = 0x4C494E4B  # "LINK"


@dataclass(slots=True, kw_only=True)
class Opened:
    """A picture whose header was read.

    Attributes:
        image: Pillow's, not loaded.
        data: What Pillow reads.
        profile: ICC profile of its colours; None when they are sRGB, or inks without a profile.
        notes: What is to be known of how it was read; each goes on after the source's name.
        frame: Left, top, right and bottom of an animation's first frame where it leaves a part of the canvas free,
            which browsers show transparent and Pillow (13.0) paints; None for others.
    """

    image: Image.Image
    data: bytes
    profile: bytes | None = None
    notes: list[str] = field(default_factory=list)
    frame: tuple[int, int, int, int] | None = None


def heif_library() -> Any:
    """Return pillow_heif.

    Raises:
        Refused: When it is not installed.
    """
    try:
        return importlib.import_module("pillow_heif")
    except ImportError as error:
        raise Refused("is a HEIC picture; `pip install 'sdbatch[heic]'` reads these") from error


def profile_of_cicp(numbers: tuple[int, int, int, int], *, is_rgb: bool) -> bytes | None:
    """Return the profile that numbers of ITU-T H.273 stand for; None for sRGB.

    Args:
        numbers: Primaries, transfer, matrix and full range.
        is_rgb: Whether the file holds RGB, so that matrix and range count; else the decoder has used them already.

    Raises:
        Refused: When they cannot be honoured.
    """
    primaries, transfer, matrix, is_full = numbers
    if transfer not in TRANSFERS:
        title = TRANSFER_NAMES.get(transfer, f"number {transfer}")
        raise Refused(f"its colours have the transfer {title}, which is not read; save it as sRGB")
    if primaries not in PRIMARIES:
        raise Refused(f"its colours have the primaries {primaries} of ITU-T H.273; save it as sRGB")
    if is_rgb and (matrix != 0 or not is_full):
        raise Refused(f"its colours have matrix {matrix}, range {is_full}; save it as sRGB")
    return _matrix_profile(PRIMARIES[primaries], TRANSFERS[transfer])


def _matrix_profile(chromaticities: tuple[float, ...], exponent: float | None) -> bytes | None:
    return None if chromaticities == SRGB and exponent is None else matrix_profile(chromaticities, exponent)


def _open_png(data: bytes) -> Opened:
    lean, colour = read_png(data)
    image = PngImageFile(io.BytesIO(lean))
    depth, key = lean[_PNG_DEPTH], image.info.get("transparency")
    if image.mode == "L" and depth < 8 and isinstance(key, int):  # Pillow 13.0 scales the greys and not this one
        image.info["transparency"] = key * 255 // (2**depth - 1)
    return Opened(image=image, data=lean, profile=png_profile(colour))


def png_profile(colour: PngColour) -> bytes | None:
    """Return the profile of a PNG's colours: of cICP, iCCP, sRGB, gAMA and cHRM the first one that is there."""
    if colour.cicp is not None:
        return profile_of_cicp(colour.cicp, is_rgb=True)
    if colour.profile is not None or colour.is_srgb:
        return colour.profile
    points = colour.chromaticities
    if points is None or max(abs(one - two) for one, two in zip(points, SRGB, strict=True)) < NEARLY:
        points = SRGB
    if colour.gamma is None or not 0.05 < colour.gamma < 20 or abs(colour.gamma - GAMMA_SRGB) < NEARLY:
        return _matrix_profile(points, None)
    return _matrix_profile(points, 1 / colour.gamma)


def _open_jpeg(data: bytes) -> Opened:
    image = Jpeg(io.BytesIO(data))
    opened = _with_profile(image, data)
    if opened.profile is None and image.mode == "RGB" and image.getexif().get_ifd(0xA005).get(1) == "R03":
        opened.profile = matrix_profile(ADOBE_RGB, ADOBE_RGB_EXPONENT)  # what cameras mean by their mode "Adobe RGB"
    return opened


def _open_avif(data: bytes) -> Opened:
    return _with_nclx(_with_profile(AvifImageFile(io.BytesIO(data)), data))


def _open_heic(data: bytes) -> Opened:
    image = heif_library().HeifImageFile(io.BytesIO(data))
    return _with_nclx(_with_profile(image, data))


def _with_nclx(opened: Opened) -> Opened:
    numbers = nclx(opened.data)
    if opened.profile is None and numbers is not None:
        opened.profile = profile_of_cicp(numbers, is_rgb=False)
    return opened


def open_tiff(file: BinaryIO) -> TiffImageFile:
    """Return a TIFF whose header was read.

    Raises:
        Refused: When it is one of pixels that Pillow (13.0) has no mode for.
    """
    try:
        return TiffImageFile(file)
    except SyntaxError as error:
        if str(error) != "unknown pixel mode":
            raise
        raise Refused(
            "holds pixels that are not read, such as RGB of 12 or 32 bits a channel; save it with 8 or 16 bits"
        ) from error


def _open_bmp(data: bytes) -> Opened:
    opened = Opened(image=BmpImageFile(io.BytesIO(data)), data=data)
    if len(data) >= 138 and struct.unpack_from("<I", data, 14)[0] == _BMP_V5_BYTES:
        space, place, size = struct.unpack_from("<I", data, 70)[0], *struct.unpack_from("<2I", data, 126)
        if space == _BMP_PROFILE_INSIDE:
            opened.profile = data[14 + place : 14 + place + size]
        elif space == _BMP_PROFILE_OUTSIDE:
            opened.notes.append("its colour profile is another file, so that its values were taken as sRGB")
    return opened


def _open_gif(data: bytes) -> Opened:
    image = GifImageFile(io.BytesIO(data))
    opened = Opened(image=image, data=data)
    if "transparency" not in image.info and image.dispose_extent != (0, 0, *image.size):
        opened.frame = image.dispose_extent
    place = data.find(b"\x21\xff\x0bICCRGBG1012")
    if place >= 0:
        opened.profile = _gif_blocks(data, place + 14)
    return opened


def _gif_blocks(data: bytes, place: int) -> bytes:
    """Return the content of the blocks at a place of a GIF; each begins with its length, an empty one ends them."""
    content = b""
    while place < len(data) and data[place]:
        content += data[place + 1 : place + 1 + data[place]]
        place += 1 + data[place]
    return content


def _open_webp(data: bytes) -> Opened:
    opened = _with_profile(WebPImageFile(io.BytesIO(data)), data)
    frame = first_frame(data)
    if opened.image.mode == "RGB" and frame != (0, 0, *opened.image.size):
        opened.frame = frame
    return opened


def _with_profile(image: Image.Image, data: bytes) -> Opened:
    """Return an opened picture with the profile that Pillow found; one whose parts do not fit together is empty."""
    profile = (image.info["icc_profile"] or b"") if "icc_profile" in image.info else None
    return Opened(image=image, data=data, profile=profile)


OPENERS: Final[dict[str, Callable[[bytes], Opened]]] = {
    "PNG": _open_png,
    "JPEG": _open_jpeg,
    "WEBP": _open_webp,
    "AVIF": _open_avif,
    "TIFF": lambda data: _with_profile(open_tiff(io.BytesIO(data)), data),
    "BMP": _open_bmp,
    "GIF": _open_gif,
    "HEIC": _open_heic,
}

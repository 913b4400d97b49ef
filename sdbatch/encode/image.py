"""Encodes pixels as picture files that embed their recipe.

    image_HWC + recipe --> encode_image() --> bytes          bytes --> read_embedded_image() --> recipe

PNG holds the recipe in an iTXt chunk `sdbatch`, the other formats in the EXIF UserComment; both are JSON in UTF-8.
"""

# H and W pixels, C = 3 channels.

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdbatch.encode.embedded import Encoded, embedded_text, from_text
from sdbatch.encode.png import encode_png
from sdbatch.formats import PICTURES
from sdbatch.job import Encode
from sdbatch.packets import PNG_KEYWORD, Packet
from sdbatch.points import reached

THUMBNAIL_PIXELS_MAX = 320
Picture = Image.Image
"""Pillow's picture, for those who may not import Pillow."""
_PILLOW_NAMES = tuple(one.pillow for one in PICTURES.values())
_EXIF_IFD, _USER_COMMENT, _SOFTWARE = 0x8769, 0x9286, 0x0131
_UNDEFINED = b"\0" * 8
_EXIF_BYTES_MAX = 60_000
"""A JPEG segment ends at 65,533 bytes; a file with a longer recipe embeds only the key; the metadata hold the recipe"""


def encode_image(
    image_HWC: NDArray[np.uint8],
    options: Encode,
    *,
    request_key: str,
    n: int,
    recipe: str,
    xmp: Packet | None = None,
) -> Encoded:
    """Encode one picture with its recipe inside.

    Args:
        image_HWC: uint8, RGB.
        options: The job's `encode`.
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON.
        xmp: What the file says of itself.
    """
    written = PICTURES[options.image]
    if written.recipe_in == "text":
        data = encode_png(image_HWC, _texts(embedded_text(request_key, n, recipe), xmp))
    else:
        data = _encoded_by_pillow(image_HWC, options, _exif(request_key, n, recipe), xmp)
    reached("after-encode")
    return Encoded(data=data, suffix=options.image, media_type=written.media_type)


def _encoded_by_pillow(image_HWC: NDArray[np.uint8], options: Encode, exif: Any, xmp: Packet | None) -> bytes:
    written = PICTURES[options.image]
    arguments = {name: getattr(options, name) for name in written.options}
    arguments |= written.save_lossless if arguments.get("lossless") else written.save
    arguments |= {"exif": exif} | ({"xmp": xmp.data} if xmp else {})
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, written.pillow, **arguments)
    return buffer.getvalue()


def read_embedded_image(data: bytes) -> dict[str, Any] | None:
    """Return what `encode_image` embedded, None when the file holds nothing of ours.

    Raises:
        OSError: When it is not a whole picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW_NAMES) as image:
            image.load()
            text = image.info.get("sdbatch") or _comment(image)
    except SyntaxError as error:  # Pillow's AVIF reader raises this for a part of a file
        raise OSError(f"not a whole picture: {error}") from error
    return from_text(text)


def as_picture(image_HWC: NDArray[np.uint8]) -> Picture:
    """Return an image as Pillow's own."""
    return Image.fromarray(image_HWC)


def read_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture that `encode_image` made; returns image_HWC, uint8, RGB.

    Raises:
        OSError: When it is not a whole picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW_NAMES) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except SyntaxError as error:  # Pillow's AVIF reader raises this for a part of a file
        raise OSError(f"not a whole picture: {error}") from error


def read_small_image(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode a picture that `encode_image` made, scaled to a square; see `read_image`."""
    small = Image.fromarray(read_image(data)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def _comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    return comment.removeprefix(_UNDEFINED).decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)


def thumbnail(image_HWC: NDArray[np.uint8]) -> bytes:
    """Return a JPEG of at most `THUMBNAIL_PIXELS_MAX` a side; smaller pictures keep their size.

    A WebP takes ten times the CPU, and as many bytes where a picture has grain.
    """
    image = Image.fromarray(image_HWC)
    # A box reduction first makes the Lanczos filter several times faster.
    image.thumbnail((THUMBNAIL_PIXELS_MAX, THUMBNAIL_PIXELS_MAX), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _texts(text: str, xmp: Packet | None) -> list[tuple[str, str]]:
    """Return keyword and text of a PNG's text chunks."""
    packets = [(PNG_KEYWORD, xmp.data.decode())] if xmp else []
    return [("sdbatch", text), ("Software", "sdbatch"), *packets]


def _exif(request_key: str, n: int, recipe: str) -> Image.Exif:
    text = embedded_text(request_key, n, recipe)
    if len(text.encode()) > _EXIF_BYTES_MAX:
        text = embedded_text(request_key, n, None)
    exif = Image.Exif()
    exif[_SOFTWARE] = "sdbatch"
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNDEFINED + text.encode()
    return exif

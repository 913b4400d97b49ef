"""Decodes source pictures and masks, and fits them to a size.

    bytes --> decode_image() --> fit_image() --> image_HWC
    bytes --> decode_mask()  --> fit_mask()  --> mask_HW

Sources may come from anybody. Only formats of an allow-list are decoded (Pillow's default reaches Ghostscript), pixels
are counted before they are unpacked, colours are brought to sRGB, and every mode becomes RGB by a stated rule.
"""

# H and W pixels, C = 3 channels.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.colour import is_transformed, to_srgb
from sdbatch.fetch.openers import Opened
from sdbatch.fetch.opening import load_picture, open_picture

SHAPE_DIFFERENCE_MAX = 0.02
"""Share by which the proportions of a mask and its picture may differ, because sizes are rounded to whole pixels."""

WHITE_MIN = 128
"""Brightness from which on a part of a mask is painted; diffusers' mask processor divides at a half too."""

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, name: str, pixels_max: int, notes: list[str] | None = None) -> Image.Image:
    """Decode a picture to RGB in sRGB: first frame, upright, alpha composited on white, 16 bit scaled to 8.

    Args:
        data: Content of the file.
        name: Name of the source in messages.
        pixels_max: Most pixels, height times width, checked before anything is unpacked.
        notes: Receives a sentence for each thing that is to be known of how it was read.

    Raises:
        SourceUnreadable: When it is not a whole picture of one of `sdbatch.fetch.picture_formats.FORMATS`.
        SourceTooLarge: When it has more pixels.
    """
    opened = open_picture(data, name, pixels_max)
    return _in_srgb(opened, load_picture(opened, name), name, notes)


def decode_fitted(
    data: bytes,
    name: str,
    pixels_max: int,
    *,
    height: int,
    width: int,
    fit: str,
    notes: list[str] | None = None,
) -> tuple[Pixels, tuple[int, int]]:
    """Decode a picture and bring it to a size, as `decode_image` and `fit_image` do one after the other.

    A picture whose colours must be changed is shrunk before, when it is larger: of 12 million pixels, few are needed.

    Returns:
        image_HWC, and the picture's own width and height.
    """
    opened = open_picture(data, name, pixels_max)
    image = load_picture(opened, name)
    own_size, size = image.size, (width, height)
    if is_transformed(image, opened.profile) and min(own_size[0] - width, own_size[1] - height) > 0:
        shrink = ImageOps.fit if fit == "cover" else ImageOps.contain
        image = shrink(image, size, Image.Resampling.LANCZOS)
    return fit_image(_in_srgb(opened, image, name, notes), height, width, fit), own_size


def _in_srgb(opened: Opened, image: Image.Image, name: str, notes: list[str] | None) -> Image.Image:
    """Return a picture in sRGB and on white, and tell of how it was read."""
    image, note = to_srgb(image, opened.profile)
    if notes is not None:
        notes.extend(f"{name}: {text}" for text in (*opened.notes, note) if text)
    return on_white(image) if image.mode == "RGBA" else image


def decode_mask(data: bytes, name: str, pixels_max: int, notes: list[str] | None = None) -> Image.Image:
    """Decode a mask to one channel, its brightness: white parts are painted, black parts are kept.

    Its colour profile does not matter, since a mask has no colours.

    Raises:
        SourceUnreadable: Also when parts are transparent, which mean white to some programs and black to others.
    """
    opened = open_picture(data, name, pixels_max)
    image = load_picture(opened, name)
    if notes is not None:
        notes.extend(f"{name}: {text}" for text in opened.notes)
    colours, _ = to_srgb(image, None)
    if colours.mode == "RGBA" and not _is_opaque(colours):
        raise SourceUnreadable(f"{name}: a mask is black and white; this one has transparent parts")
    return colours.convert("L")


def fit_image(
    image: Image.Image, height: int, width: int, fit: str, ground: tuple[int, int, int] | None = None
) -> Pixels:
    """Bring a picture to a size: `cover` scales and crops the middle, `contain` scales and pads.

    Args:
        image: The picture, RGB.
        height: Height in pixels.
        width: Width in pixels.
        fit: `cover` or `contain`.
        ground: Colour of the padding; None for the picture's mean colour.

    Returns:
        image_HWC, uint8.
    """
    size = (width, height)
    if image.size == size:
        return np.asarray(image, dtype=np.uint8)
    if fit == "cover":
        return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS), dtype=np.uint8)
    colour = ground or mean_colour(image)
    return np.asarray(ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=colour), dtype=np.uint8)


def fit_mask(mask: Image.Image, of: tuple[int, int], height: int, width: int, fit: str, name: str) -> Pixels:
    """Bring a mask to a size the way its picture was; the padding of `contain` is kept.

    Args:
        mask: The mask, one channel.
        of: Width and height of the picture it belongs to; it may be larger or smaller, but not of another shape.
        height: Height in pixels.
        width: Width in pixels.
        fit: `cover` or `contain`.
        name: Name of the source in messages.

    Returns:
        mask_HW, uint8, 0 or 255.

    Raises:
        SourceUnreadable: When it has another shape than its picture, or nothing in it is white.
    """
    if abs(mask.width * of[1] / (mask.height * of[0]) - 1) > SHAPE_DIFFERENCE_MAX:
        raise SourceUnreadable(
            f"{name}: a mask of {mask.width} x {mask.height} does not lie on a picture of {of[0]} x {of[1]}"
        )
    scaled = mask if mask.size == of else mask.resize(of, Image.Resampling.BILINEAR)
    if fit == "cover":
        fitted = ImageOps.fit(scaled, (width, height), Image.Resampling.BILINEAR)
    else:
        fitted = ImageOps.pad(scaled, (width, height), Image.Resampling.BILINEAR, color=0)
    mask_HW = np.where(np.asarray(fitted) >= WHITE_MIN, 255, 0).astype(np.uint8)
    if not mask_HW.any():
        raise SourceUnreadable(f"{name}: no part of the mask is white, so nothing would be painted")
    return mask_HW


def mean_colour(image: Image.Image) -> tuple[int, int, int]:
    """Return the mean colour of an RGB picture."""
    red, green, blue = (round(float(value)) for value in np.asarray(image).reshape(-1, 3).mean(axis=0))
    return red, green, blue


def on_white(image: Image.Image) -> Image.Image:
    """Lay an RGBA picture on white; return RGB."""
    if _is_opaque(image):
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema()[0] == 255

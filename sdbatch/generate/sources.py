"""Source bytes become RGB pixels of the asked size.

    bytes --> decode_image() --> fit_image() --> image_HWC

Strangers' files: only formats of an allow-list are decoded (Pillow's default reaches Ghostscript), pixels are capped
before they are unpacked, and whatever the mode, RGB comes out by a stated rule.
"""

# H and W pixels, C = 3 channels.

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sdbatch.errors import SourceTooLarge, SourceUnreadable

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
Pixels = NDArray[np.uint8]


def decode_image(data: bytes, name: str, pixels_max: int) -> Image.Image:
    """Decode a picture to RGB: first frame, upright, alpha composited on white, 16 bit scaled to 8.

    Args:
        data: The file.
        name: For messages.
        pixels_max: Height times width, checked before anything is unpacked.

    Raises:
        SourceUnreadable: When it is not a whole picture of one of `FORMATS`.
        SourceTooLarge: When it has more pixels.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > pixels_max:
            raise SourceTooLarge(f"{name}: {image.width} x {image.height} pixels are over {pixels_max}")
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise SourceTooLarge(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise SourceUnreadable(f"{name}: not a whole picture of {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceUnreadable(f"{name}: not a whole picture of {', '.join(FORMATS)}: {error}") from error


def fit_image(image: Image.Image, height: int, width: int, fit: str) -> Pixels:
    """Bring a picture to a size: `cover` scales and crops the middle, `contain` scales and pads with its mean colour.

    Returns:
        image_HWC, uint8.
    """
    size = (width, height)
    if image.size == size:
        return np.asarray(image, dtype=np.uint8)
    if fit == "cover":
        return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS), dtype=np.uint8)
    mean: Any = tuple(round(float(value)) for value in np.asarray(image).reshape(-1, 3).mean(axis=0))
    return np.asarray(ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=mean), dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # convert("RGB") would clip at 255
        scaled = np.asarray(image, dtype=np.float64) / 257.0
        return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")

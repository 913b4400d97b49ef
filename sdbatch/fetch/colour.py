"""Brings a picture to sRGB through the ICC profile that it carries.

    picture + profile --> to_srgb() --> RGB, RGBA; and a note where the profile could not be used

A profile that is broken, or made for other channels than the picture has, changes nothing: the values count as sRGB, as
they do in every viewer, and the note says so in the output's row.
"""

from __future__ import annotations

import functools
import io
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

INTENT: Final = ImageCms.Intent.RELATIVE_COLORIMETRIC
"""A matrix profile has no other one; of a printer's four tables it is the one that keeps colours which sRGB has."""

CACHED_BYTES_MAX: Final = 4 << 20
"""Longest profile whose transform is kept; with 16 of them, so many bytes at most."""

_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for the channels of each colour space of a profile."""

_CLASSES: Final = frozenset({"scnr", "mntr", "prtr", "spac"})
_LATTICE: Final = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)


class _UnusableProfile(ValueError):
    """A profile cannot be used for a picture; the text goes on after "its colour profile"."""


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """Return a picture with its colours in sRGB, RGB or RGBA, and a note when its profile could not be used.

    Args:
        image: The picture, 8 bits a channel, in any mode. A palette is spelled out, alpha is kept as it is.
        profile: Its ICC profile; None when it has none, which means sRGB, or plain inks of CMYK.
    """
    base, alpha = _split(image)
    note = None
    if profile is not None and base.mode != "LAB":  # CIELAB says itself what its colours are
        try:
            base = _transformed(base, profile)
        except _UnusableProfile as error:
            note = f"its colour profile {error}, so that its values were taken as sRGB"
    colours = base if base.mode == "RGB" else base.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return colours, note


def is_transformed(image: Image.Image, profile: bytes | None) -> bool:
    """Whether `to_srgb` changes every pixel of a picture by itself, so that it may be shrunk before."""
    if profile is None or image.mode not in {"L", "RGB", "CMYK"} or "transparency" in image.info:
        return False
    try:
        mode, transform = _found(profile)
    except _UnusableProfile:
        return False
    return transform is not None and mode in {image.mode, "RGB"}


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return a picture's colours, and its alpha when it has any."""
    if image.mode == "La":  # Pillow 13.0 brings it to nothing but LA
        image = image.convert("LA")
    elif image.mode in {"RGBa", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in {"RGBA", "LA"}:
        colours = Image.merge(image.mode[:-1], image.split()[:-1])
        return colours, image.getchannel("A")
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _transformed(image: Image.Image, profile: bytes) -> Image.Image:
    mode, transform = _found(profile)
    if image.mode == "L" and mode == "RGB":
        image = image.convert("RGB")
    if image.mode != mode:
        raise _UnusableProfile(f"is for {mode} and the picture is {image.mode}")
    if transform is None:
        return image
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None, "only a transform in place returns nothing"
    return changed


def _found(profile: bytes) -> tuple[str, Any]:
    """See `_transform`."""
    return (_transform if len(profile) <= CACHED_BYTES_MAX else _transform.__wrapped__)(profile)


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, Any]:
    """Return the mode that a profile is for, and the transform to sRGB; None when it changes nothing.

    Raises:
        _UnusableProfile: When it is broken, or describes no device.
    """
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space, kind = opened.profile.xcolor_space.strip(), opened.profile.device_class.strip()
    except (OSError, ImageCms.PyCMSError) as error:
        raise _UnusableProfile("is broken") from error
    if space not in _MODES or kind not in _CLASSES:
        raise _UnusableProfile(f"is of a kind that pictures do not have ({space}, {kind})")
    mode = _MODES[space]
    try:
        transform = ImageCms.buildTransform(opened, _srgb(), mode, "RGB", INTENT)
    except (OSError, ImageCms.PyCMSError) as error:
        raise _UnusableProfile("is broken") from error
    return mode, None if _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether no colour moves by more than 1 of 255, as with the many profiles that describe sRGB."""
    if mode == "CMYK":
        return False
    before_HWC = _LATTICE if mode == "RGB" else np.arange(256, dtype=np.uint8).reshape(1, -1)
    after = ImageCms.applyTransform(Image.fromarray(before_HWC), transform)
    assert after is not None, "only a transform in place returns nothing"
    expected = before_HWC if mode == "RGB" else before_HWC[..., None]
    return int(np.abs(np.asarray(after).astype(np.int16) - expected).max()) <= 1


@functools.cache
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")

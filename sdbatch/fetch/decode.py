"""Decodes a request's sources to the pixels that its pipeline call is given, role by role.

Source x N + settings --> decode_sources() --> {images, mask, video, control_image, ip_adapter_images}
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch.clips import decode_clip
from sdbatch.fetch.origin import said_source_type
from sdbatch.fetch.pictures import decode_fitted, decode_image, decode_mask, fit_mask
from sdbatch.fetch.settings import ENLARGED_PIXELS_MAX, REFERENCE_SIDE, PixelSettings
from sdbatch.types import Source


def decode_sources(
    sources: Iterable[Source], settings: PixelSettings, read: Callable[[Source], bytes], pixels_max: int
) -> dict[str, Any]:
    """Read, decode and fit every source of a request.

    Args:
        sources: The request's sources; images come before the mask, which belongs to the first of them.
        settings: The size, and how a source is fitted to it.
        read: Returns a source's bytes.
        pixels_max: Most pixels, height times width, of any source.

    Returns:
        Pixels by role, each at the size asked for: `images` and `control_image` tuples of image_HWC, `mask` a mask_HW,
        `video` a video_FHWC; `ip_adapter_images` squares of `REFERENCE_SIDE`. Beside them `notes`, a tuple of
        sentences, when something is to be known of how they were read, and `source_types`, when one of `images` or
        `video` says of itself how it came to be: an address each, or "".

    Raises:
        RowError: When a source cannot be read, decoded or fitted.
    """
    height, width, fit = settings.height, settings.width, settings.fit
    pixels: dict[str, Any] = {}
    notes: list[str] = []
    said: list[str] = []
    first_size = (width, height)

    def picture(name: str, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        return decode_fitted(data, name, pixels_max, height=height, width=width, fit=fit, notes=notes)

    for source in sources:
        data = read(source)
        if source.role in {"images", "video"}:
            said.append(said_source_type(data))
        match source.role:
            case "images" if settings.enlarges > 1:
                image = decode_image(data, source.url, pixels_max, notes)
                _refuse_size(source.url, image.size, settings)
                pixels["images"] = (*pixels.get("images", ()), np.asarray(image, dtype=np.uint8))
            case "images":
                image_HWC, own_size = picture(source.url, data)
                first_size = first_size if "images" in pixels else own_size
                pixels["images"] = (*pixels.get("images", ()), image_HWC)
            case "mask":
                mask = decode_mask(data, source.url, pixels_max, notes)
                pixels["mask"] = fit_mask(mask, first_size, height, width, fit, source.url)
            case "video":
                assert settings.num_frames is not None, "settings for a source clip have num_frames"
                assert settings.fps is not None, "settings for a source clip have fps"
                pixels["video"] = decode_clip(
                    data,
                    source.url,
                    num_frames=settings.num_frames,
                    fps=settings.fps,
                    height=height,
                    width=width,
                    fit=fit,
                    pixels_max=pixels_max,
                    notes=notes,
                )
            case "ip_adapter_images" as role:
                side = REFERENCE_SIDE
                reference_HWC, _ = decode_fitted(
                    data, source.url, pixels_max, height=side, width=side, fit="cover", notes=notes
                )
                pixels[role] = (*pixels.get(role, ()), reference_HWC)
            case role:
                control_HWC, _ = picture(source.url, data)
                pixels[role] = (*pixels.get(role, ()), control_HWC)
    if notes:
        pixels["notes"] = tuple(notes)
    if any(said):
        pixels["source_types"] = tuple(said)
    return pixels


def _refuse_size(name: str, size: tuple[int, int], settings: PixelSettings) -> None:
    """Refuse a source that cannot be enlarged to what the row says, or to what fits a machine."""
    width, height = (side * settings.enlarges for side in size)
    becomes = f"{name}: is {size[0]} x {size[1]} pixels, which become {width} x {height}"
    if settings.height and (width, height) != (settings.width, settings.height):
        asked = f"{settings.width} x {settings.height}"
        raise SourceUnreadable(f"{becomes}; the row says {asked}: leave width and height out, or say those")
    if width * height > ENLARGED_PIXELS_MAX:
        raise SourceTooLarge(f"{becomes}, over {ENLARGED_PIXELS_MAX} pixels; name a smaller source")

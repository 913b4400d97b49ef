"""Encodes the output of a model as a file: a picture, or a clip where the frames have a rate.

frames_FHWC --> encode_asset() --> Encoded        bytes --> read_embedded() --> recipe, read_frames() --> frames_FHWC
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.encode.embedded import Encoded
from sdbatch.encode.image import encode_image, read_embedded_image, read_image, read_small_image
from sdbatch.encode.video import SITING, encode_video, read_embedded_video, read_frames_of_video
from sdbatch.formats import CLIPS
from sdbatch.job import Encode
from sdbatch.local_faults import local_fault, temporary_folder
from sdbatch.packets import Packet
from sdbatch.types import Sound

ALIKE_PIXELS: Final = 16
"""Height and width at which two assets are compared: what a low rate factor smears is even there."""
ALIKE_DIFFERENCE_MAX: Final = 16.0
"""Mean difference of two assets that show the same, of 255; pictures of two prompts differ by 40 and more."""


def encode_asset(
    frames_FHWC: NDArray[np.uint8],
    options: Encode,
    *,
    fps: float | None,
    sound: Sound | None,
    request_key: str,
    n: int,
    recipe: str,
    xmp: Packet | None = None,
    siting: str = SITING,
) -> Encoded:
    """Encode one asset with its recipe inside.

    Args:
        frames_FHWC: uint8, RGB; one frame for a picture.
        options: The job's `encode`.
        fps: Frames per second of the clip; None for a picture.
        sound: Sound of the clip; None for a silent one.
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON.
        xmp: What the file says of itself.
        siting: Of a clip; see `encode_video`.

    Raises:
        EncodeFailed: When a clip could not be encoded.
    """
    if fps is None:
        assert len(frames_FHWC) == 1, f"{len(frames_FHWC)} frames without a rate"
        return encode_image(frames_FHWC[0], options, request_key=request_key, n=n, recipe=recipe, xmp=xmp)
    named: dict[str, Any] = {"request_key": request_key, "n": n, "recipe": recipe, "sound": sound, "xmp": xmp}
    return encode_video(frames_FHWC, fps, options, **named, siting=siting)


def read_embedded(data: bytes, suffix: str) -> dict[str, Any] | None:
    """Return what `encode_asset` embedded, None when the file holds nothing of ours.

    Raises:
        OSError: When it is not whole.
    """
    return read_embedded_video(data, suffix) if suffix in CLIPS else read_embedded_image(data)


def is_asset_of(data: bytes, suffix: str, request_key: str, n: int) -> bool:
    """Whether a file is a whole asset of an output, as what is embedded in it says."""
    try:
        embedded = read_embedded(data, suffix) or {}
    except (OSError, SyntaxError, ValueError) as error:
        if fault := local_fault(error, temporary_folder(), "TMPDIR"):
            raise fault from error
        return False
    return (embedded.get("request_key"), embedded.get("n")) == (request_key, n)


def is_alike(one: bytes, two: bytes, suffix: str) -> bool:
    """Whether two whole assets show the same, but for what another device or encoder changes."""
    try:
        one_FHWC, two_FHWC = (_small_frames(data, suffix) for data in (one, two))
    except (OSError, SyntaxError, ValueError) as error:
        if fault := local_fault(error, temporary_folder(), "TMPDIR"):
            raise fault from error
        return False
    if one_FHWC.shape != two_FHWC.shape:
        return False
    return float(np.abs(one_FHWC.astype(np.int16) - two_FHWC).mean()) <= ALIKE_DIFFERENCE_MAX


def _small_frames(data: bytes, suffix: str) -> NDArray[np.uint8]:
    if suffix in CLIPS:
        return read_frames_of_video(data, suffix, ALIKE_PIXELS, ALIKE_PIXELS, scales=True)
    return read_small_image(data, ALIKE_PIXELS)[None]


def read_frames(data: bytes, suffix: str, height: int, width: int) -> NDArray[np.uint8]:
    """Decode an asset; returns frames_FHWC, uint8, RGB, one frame for a picture.

    Args:
        data: Whole file.
        suffix: Suffix of the file name, without the dot.
        height: Height in pixels, from the metadata.
        width: Width in pixels.

    Raises:
        OSError: When it is not whole, or a clip of another size.
    """
    if suffix in CLIPS:
        return read_frames_of_video(data, suffix, height, width)
    return read_image(data)[None]

"""A user's own watermark: called with every picture before it is encoded, and what it returns is looked at.

frames_FHWC --> marked() --> the function, frame by frame --> frames_FHWC of the same form
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbatch.errors import JobError, WatermarkFailed
from sdbatch.named_functions import function_of


def marked(frames_FHWC: NDArray[np.uint8], call: str, *, request_key: str, n: int) -> NDArray[np.uint8]:
    """Return the frames as the function gives them back; those that were handed in stay as they are.

    Args:
        frames_FHWC: uint8, RGB; one frame for a picture.
        call: `module:function`. It is called from several threads.
        request_key: Of the request; with `n` it is what a mark may name.
        n: Output number.

    Raises:
        WatermarkFailed: When it is not there, raises, or returns no picture of the same size and type.
    """
    try:
        mark = function_of(call, "watermark.call")
    except JobError as error:
        raise WatermarkFailed(str(error)) from error
    out_FHWC = np.empty_like(frames_FHWC)
    for number, image_HWC in enumerate(frames_FHWC):
        try:
            given = mark(image_HWC.copy(), request_key=request_key, n=n)
        except Exception as error:  # whatever a stranger's function raises is told by its name
            raise WatermarkFailed(f"{call} raised {type(error).__name__}: {error}") from error
        if fault := _fault(given, image_HWC):
            raise WatermarkFailed(f"{call} returned {fault}")
        out_FHWC[number] = given
    return out_FHWC


def _fault(given: Any, image_HWC: NDArray[np.uint8]) -> str | None:
    """Return what is wrong with what the function returned; None when nothing is."""
    if not isinstance(given, np.ndarray):
        return f"{type(given).__name__}, not a NumPy array"
    if given.dtype != np.uint8:
        return f"numbers of type {given.dtype}, not uint8"
    if given.shape != image_HWC.shape:
        return f"an array of shape {given.shape}, not {image_HWC.shape}: height, width, 3 channels"
    return None

"""Say how the camera of a clip of the small world moves, and how alike two pictures are: rules on pixels alone.

clip_FHWC --> pan_of() --> "left", "still", "right"
two pictures --> ssim() --> 1.0 for equal ones
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tiny.moving import PAN_PER_FRAME

_FRAMES_APART: Final = 4
_REACH: Final = 11
"""Shifts tried, pixels to either side; a pan shifts 8 in four frames."""
_LAND: Final = (slice(22, 61), slice(3, 61))
"""Rows and columns without drifting clouds, the sky's stripes and a poster's margin."""
_WINDOW: Final = 7


def pan_of(clip_FHWC: NDArray[np.uint8]) -> str:
    """Tell the camera's pan from the shift at which the land's upright edges fit best, four frames on."""
    land_FHW = clip_FHWC[:, _LAND[0], _LAND[1]].astype(np.float64).mean(axis=3)
    edges_FHW = np.diff(land_FHW, axis=2)
    shifts = range(-_REACH, _REACH + 1)
    best = max(shifts, key=lambda shift: _fit(edges_FHW[:-_FRAMES_APART], edges_FHW[_FRAMES_APART:], shift))
    if abs(best) < PAN_PER_FRAME * _FRAMES_APART / 2:
        return "still"
    return "left" if best > 0 else "right"  # the land goes against the camera


def _fit(earlier_FHW: NDArray[np.float64], later_FHW: NDArray[np.float64], shift: int) -> float:
    """Return the mean correlation of frames with later ones that are shifted to the right."""
    width = earlier_FHW.shape[2]
    one = earlier_FHW[:, :, max(0, -shift) : width - max(0, shift)]
    two = later_FHW[:, :, max(0, shift) : width - max(0, -shift)]
    one, two = (edges - edges.mean(axis=(1, 2), keepdims=True) for edges in (one, two))
    norms = np.sqrt((one**2).sum(axis=(1, 2)) * (two**2).sum(axis=(1, 2))) + 1e-9
    return float(((one * two).sum(axis=(1, 2)) / norms).mean())


def motion(clip_FHWC: NDArray[np.uint8]) -> float:
    """Return the mean difference of neighbouring frames, of 255."""
    return float(np.abs(np.diff(clip_FHWC.astype(np.float64), axis=0)).mean())


def ssim(one_HWC: NDArray[np.uint8], two_HWC: NDArray[np.uint8]) -> float:
    """Return the structural similarity of two pictures' brightness: Wang et al. 2004, windows of 7 x 7."""
    one, two = (picture.astype(np.float64).mean(axis=2) for picture in (one_HWC, two_HWC))
    mean_one, mean_two = _windows(one), _windows(two)
    variances = _windows(one**2) - mean_one**2 + _windows(two**2) - mean_two**2
    covariance = _windows(one * two) - mean_one * mean_two
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_one * mean_two + small) * (2 * covariance + large)
    return float((alike / ((mean_one**2 + mean_two**2 + small) * (variances + large))).mean())


def _windows(values_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of every window."""
    windows = np.lib.stride_tricks.sliding_window_view(values_HW, (_WINDOW, _WINDOW))
    return np.asarray(windows.mean(axis=(2, 3)))

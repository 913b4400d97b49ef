"""A fingerprint of what a picture shows: 64 bits that outlive another size, another encoder and marks that are lost.

    gray_HW --> fingerprint() --> 16 hex digits          two of them --> bits_apart()

A hash by the discrete cosine transform: the signs of the lowest 63 frequencies about their median, as perceptual hashes
have them. It survives everything but a crop, and cannot tell siblings apart.
"""

# H and W pixels.

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 32
"""Height and width to which a picture is brought before."""
BITS_APART_MAX: Final = 10
"""Bits that two fingerprints of one picture may differ in; of 990 strangers none was so near (research, 2026-11)."""
_KEPT: Final = 8
_FLAT_MIN: Final = 2.0
"""Standard deviation under which a picture is too flat to have a fingerprint: it would be like every other flat one."""
_PLACES = np.arange(SIDE)
_COSINES = np.cos(np.pi * (2 * _PLACES[None, :] + 1) * np.arange(_KEPT)[:, None] / (2 * SIDE))


def fingerprint(gray_HW: NDArray[np.uint8]) -> str:
    """Return the fingerprint of a picture, 16 hex digits; "" for one that is all of one brightness.

    Args:
        gray_HW: Its brightness, 32 x 32.
    """
    values = gray_HW.astype(np.float64)
    assert values.shape == (SIDE, SIDE), f"a fingerprint is taken of {SIDE} x {SIDE}, not {values.shape}"
    if values.std() < _FLAT_MIN:
        return ""
    low = (_COSINES @ values @ _COSINES.T).ravel()
    low[0] = 0.0  # the mean brightness says nothing of what is shown
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


def bits_apart(one: str, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bits a fingerprint differs from each of others."""
    apart: NDArray[np.int64] = np.bitwise_count(np.uint64(int(one, 16)) ^ others).astype(np.int64)
    return apart

"""Makes the ICC profile that says in full what a file says of its colours in a few numbers.

primaries, white and transfer --> matrix_profile() --> ICC profile (bytes), which `colour.py` turns to sRGB

The numbers are those of ITU-T H.273, which PNG (cICP), AVIF and HEIC (nclx) use.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

D65: Final = (0.3127, 0.3290)
Chromaticities = tuple[float, ...]
"""x and y of white, red, green and blue."""

SRGB: Final[Chromaticities] = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
ADOBE_RGB: Final[Chromaticities] = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
PRIMARIES: Final[dict[int, Chromaticities]] = {
    1: SRGB,
    2: SRGB,  # unspecified
    5: (*D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Primaries by number: BT.709, BT.470 BG, BT.601, BT.2020, DCI-P3, Display P3, EBU 3213."""

TRANSFERS: Final[dict[int, float | None]] = {
    1: None,
    2: None,
    4: 2.2,
    5: 2.8,
    6: None,
    7: None,
    8: 1.0,
    11: None,
    12: None,
    13: None,
    14: None,
    15: None,
}
"""Exponents by number; None for sRGB's curve, which stands for BT.709's too, as it does in every viewer."""

TRANSFER_NAMES: Final = {16: "PQ", 18: "HLG", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE ST 428"}
_D50: Final = np.array([0.96420, 1.0, 0.82491])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_CURVE_POINTS: Final = 1024


@cache
def matrix_profile(chromaticities: Chromaticities, exponent: float | None) -> bytes | None:
    """Return an ICC profile of version 2.

    Args:
        chromaticities: x and y of white, red, green and blue.
        exponent: Exponent from values to light; None for sRGB's curve.

    Returns:
        The profile; None when the numbers name no colours, such as primaries on one line.
    """
    columns = _to_d50(chromaticities)
    if columns is None:
        return None
    curve = _curve(exponent)
    tags = [(b"wtpt", _xyz(_D50))]
    tags += [(name, _xyz(columns[:, place])) for place, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    offset = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags:
        table += struct.pack(">4s2I", name, offset + len(bodies), len(body))
        bodies += body + b"\0" * (-len(body) % 4)
    size = offset + len(bodies)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28
    head += b"".join(struct.pack(">i", round(float(value) * 65536)) for value in _D50)
    return head.ljust(128, b"\0") + table + bodies


def _to_d50(chromaticities: Chromaticities) -> NDArray[np.float64] | None:
    """Return the XYZ of the three primaries, one a column, adapted to the profile's white by Bradford's matrix."""
    points = np.asarray(chromaticities, dtype=np.float64).reshape(4, 2)
    if not (points[:, 1] > 1e-4).all():
        return None
    xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(axis=1)) / points[:, 1]])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    scaled = primaries * np.linalg.solve(primaries, white)
    ratio = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    columns: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD @ scaled
    return columns if bool((np.abs(columns) < 8).all()) else None


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _curve(exponent: float | None) -> bytes:
    values = np.linspace(0, 1, _CURVE_POINTS)
    if exponent is None:
        light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    else:
        light = values**exponent
    points: bytes = np.rint(light * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", _CURVE_POINTS) + points

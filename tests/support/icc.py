"""ICC profiles made here from published numbers, so that no profile of a vendor lies in the repository."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Columns = tuple[tuple[float, float, float], ...]
"""XYZ of red, green and blue, adapted to D50, as the profiles of each space state them."""

P3: Columns = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB: Columns = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO: Columns = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB: Columns = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))

INKS = {
    0b0000: (100.0, 0.0, 0.0),
    0b1000: (55.0, -37.0, -50.0),
    0b0100: (48.0, 74.0, -3.0),
    0b0010: (89.0, -5.0, 93.0),
    0b1100: (24.0, 22.0, -46.0),
    0b1010: (50.0, -65.0, 27.0),
    0b0110: (47.0, 68.0, 48.0),
    0b1110: (23.0, 0.0, 0.0),
}
"""CIELAB of full inks on coated paper by their bits: cyan, magenta, yellow, black. Black makes all of them dark."""


def rgb_profile(columns: Columns, gamma: float | None) -> bytes:
    """Return a profile of a screen; gamma None is sRGB's curve."""
    if gamma is None:
        curve = b"para\0\0\0\0" + struct.pack(
            ">HH5i", 3, 0, *map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
        )
    else:
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = [
        (name, b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, xyz)))
        for name, xyz in zip(names, columns, strict=True)
    ]
    return _profile(b"mntr", b"RGB ", b"XYZ ", [*tags, *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC"))])


def grey_profile(gamma: float) -> bytes:
    """Return a profile of a grey screen."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", [(b"kTRC", b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)))])


def cmyk_profile() -> bytes:
    """Return a profile of a press, which mixes `INKS` linearly. Of the four channels black varies fastest."""
    table = b""
    for inks in range(16):
        lightness, a, b = INKS[inks & 0b1110] if not inks & 1 else (10.0, 0.0, 0.0)
        table += bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))
    straight = bytes(range(256))
    head = b"mft1\0\0\0\0" + struct.pack(">4B9i", 4, 3, 2, 0, *map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    return _profile(b"prtr", b"CMYK", b"Lab ", [(b"A2B0", head + straight * 4 + table + straight * 3)])


def _fixed(value: float) -> int:
    return round(value * 65536)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, (0.9642, 1.0, 0.82491)))
    tags = [(b"wtpt", white), *tags]
    offset = 132 + 12 * len(tags)
    index, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags:
        index += struct.pack(">4s2I", name, offset + len(bodies), len(body))
        bodies += body.ljust(-len(body) // 4 * -4, b"\0")
    head = struct.pack(">I4sI4s4s4s", offset + len(bodies), b"", 0x04200000, kind, space, connection)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + white[8:]
    return head.ljust(128, b"\0") + index + bodies

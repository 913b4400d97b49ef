"""Boxes of ISO base media files (AVIF, HEIC), read without a decoder.

bytes --> find_boxes(path) --> bodies of the boxes at that path
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

BRANDS_BYTES_MAX: Final = 512
_FULL: Final = {b"meta": 4}
"""Bytes that stand in a box before the boxes inside it: version and flags."""

BOXES_MAX: Final = 100_000
"""Boxes that are looked at on one level; a file of empty boxes would take long else."""


def brands(data: bytes) -> tuple[bytes, ...]:
    """Return the brands of a file's `ftyp` box, the major one first; none when it does not begin with one."""
    if data[4:8] != b"ftyp":
        return ()
    stop = min(struct.unpack_from(">I", data)[0], len(data), BRANDS_BYTES_MAX)
    compatible = (data[place : place + 4] for place in range(16, stop - 3, 4))
    return (data[8:12], *compatible)


def find_boxes(data: bytes | memoryview, *path: bytes) -> Iterator[memoryview]:
    """Yield the body of each box at a path, such as `meta`, `iprp`."""
    view = memoryview(data)
    if not path:
        yield view
        return
    for kind, body in _boxes(view):
        if kind == path[0]:
            inside = body[_FULL.get(kind, 0) :] if len(path) > 1 else body
            yield from find_boxes(inside, *path[1:])


def nclx(data: bytes) -> tuple[int, int, int, int] | None:
    """Return primaries, transfer, matrix and range of an AVIF or HEIC by the numbers of ITU-T H.273; None without.

    Of several items' the first counts: it is the primary one's in what encoders write.
    """
    for properties in find_boxes(data, b"meta", b"iprp", b"ipco"):
        for kind, body in _boxes(properties):
            if kind == b"colr" and bytes(body[:4]) == b"nclx" and len(body) >= 11:
                primaries, transfer, matrix = struct.unpack_from(">3H", body, 4)
                return primaries, transfer, matrix, body[10] >> 7
    return None


def pixel_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of the largest item of an AVIF or HEIC; None when none is stated."""
    sizes = [
        struct.unpack_from(">2I", body, 4)
        for properties in find_boxes(data, b"meta", b"iprp", b"ipco")
        for kind, body in _boxes(properties)
        if kind == b"ispe" and len(body) >= 12
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and body of each box; a box that is cut ends with the data."""
    start = 0
    for _ in range(BOXES_MAX):
        if start + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, start)
        head = 8
        if size == 1 and start + 16 <= len(view):
            size, head = struct.unpack_from(">Q", view, start + 8)[0], 16
        stop = len(view) if size == 0 else start + size
        if stop < start + head:
            return
        yield kind, view[start + head : stop]
        start = stop

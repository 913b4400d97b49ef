"""How much memory decoding may take: for one source, and for all sources that a worker decodes at once.

Pure but for `MemoryBudget`, which makes threads wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

MIB: Final = 1 << 20
HEAP_KEPT_BYTES: Final = 64 * MIB
"""Free memory that a child keeps for its next picture."""

FIXED_BYTES: Final = 96 * MIB + HEAP_KEPT_BYTES
"""Address space that any decoder may take whatever the size of its picture: tables, buffers, what was kept."""

PIXEL_BYTES: Final = 40
"""Bytes for each pixel of a source picture. The dearest path (16 bit) holds 28 at once."""

FILE_COPIES: Final = 3
"""A file lies in memory as it came, as a decoder reads it, and as what the decoder unpacked of its metadata."""

CLIP_BYTES: Final = 1024 * MIB
"""Address space for ffmpeg: its program, stacks and arenas of its threads, whatever the size of the frames."""

CLIP_PIXEL_BYTES: Final = 48
"""Bytes for each pixel of the largest frame: the reference frames of a decoder, and a filter's copies, which are floats
where tones are mapped."""


def picture_needs(pixels: int, file_bytes: int) -> int:
    """Return the bytes that decoding a picture may take."""
    return FIXED_BYTES + PIXEL_BYTES * pixels + FILE_COPIES * file_bytes


def clip_needs(pixels_max: int, file_bytes: int, result_bytes: int) -> int:
    """Return the bytes that decoding a clip may take; its frames are held twice, as a list and as one array."""
    return CLIP_BYTES + CLIP_PIXEL_BYTES * pixels_max + FILE_COPIES * file_bytes + 2 * result_bytes


class MemoryBudget:
    """The bytes that all children of a worker may take together; threads wait for their part in turn.

    Args:
        bytes_max: The bound. What needs more than all of it runs alone.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._free = bytes_max
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def held(self, num_bytes: int) -> Iterator[int]:
        """Hold a part while the block runs; wait for it first, behind those who asked before.

        Yields:
            The bytes that may be taken.
        """
        part, ticket = min(num_bytes, self.bytes_max), object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= part)
            self._waiting.popleft()
            self._free -= part
            self._changed.notify_all()
        try:
            yield num_bytes
        finally:
            with self._changed:
                self._free += part
                self._changed.notify_all()

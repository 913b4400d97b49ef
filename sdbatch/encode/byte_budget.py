"""Bounds the bytes of outputs that wait for encoding and upload; a bound on their number would not do for clips."""

from __future__ import annotations

import threading


class ByteBudget:
    """Admits outputs while their bytes stay within a bound; one that is larger than the bound is admitted alone.

    Args:
        bytes_max: Most bytes that are held at a time.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held_bytes = 0
        self._changed = threading.Condition()

    def enter(self, size_bytes: int) -> None:
        """Wait until there is room for so many bytes, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held_bytes or self._held_bytes + size_bytes <= self._bytes_max)
            self._held_bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Give room back."""
        with self._changed:
            self._held_bytes -= size_bytes
            self._changed.notify_all()

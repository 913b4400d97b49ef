"""What waits for encoding and upload is bounded in bytes, not in outputs: a clip is a hundred pictures."""

from __future__ import annotations

import threading


class ByteBudget:
    """Lets bytes in up to a bound; what is larger than the bound goes in alone.

    Args:
        bytes_max: The bound.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held_bytes = 0
        self._changed = threading.Condition()

    def enter(self, size_bytes: int) -> None:
        """Wait until there is room, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held_bytes or self._held_bytes + size_bytes <= self._bytes_max)
            self._held_bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Give the room back."""
        with self._changed:
            self._held_bytes -= size_bytes
            self._changed.notify_all()

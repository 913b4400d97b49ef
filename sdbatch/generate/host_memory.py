"""Keeps freed host memory in the process, so that the next call need not ask the system for it again."""

from __future__ import annotations

import ctypes
from typing import Any, Final

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""

KEPT_BYTES_MAX: Final = 1 << 30
"""Free bytes that stay at the end of the heap; more than these go back to the system."""

_HEAP_BYTES: Final = 64 << 20
"""Size of glibc's heap of a thread; a free one keeps its pages only where this much padding is asked for."""

_MMAP_BYTES: Final = 32 << 20
"""Largest threshold that glibc accepts; larger pieces still come from the system one by one, and go back at once."""


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed; elsewhere nothing happens.

    By default glibc gives a tensor's pages back to the system as soon as it is freed, and the next tensor of that size
    faults every page in again. Values are not touched.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(_TOP_PAD, _HEAP_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)

"""What Python's collector of cycles looks at, and how often.

    with left_to_stay(): import torch, diffusers --> no collection meanwhile, and none of it is looked at later
    with seldom_collected(): a million rows pass --> few collections, since no row is part of a cycle

The collector looks at new objects again and again, and now and then at all there are: at half a million of the
libraries', and at every row that waits.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SELDOM: Final = (50_000, 20, 100)
"""Thresholds of the three generations (`gc.set_threshold`); Python's own are 700 objects, 10 and 10 collections."""


@contextmanager
def left_to_stay() -> Iterator[None]:
    """Run the block without collections; what lives at its end is never collected, and never looked at again.

    It is for a process of our own alone, before any model is loaded: a model that lived here would stay for good.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


class _Blocks:
    """The blocks that run now, in any thread: the first one sets the thresholds, the last one puts them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._before = gc.get_threshold()

    def enter(self) -> None:
        with self._lock:
            if not self._number:
                self._before = gc.get_threshold()
                if self._before[0]:  # 0 means that nothing is collected by itself
                    gc.set_threshold(*map(max, self._before, SELDOM))
            self._number += 1

    def leave(self) -> None:
        with self._lock:
            self._number -= 1
            if not self._number:
                gc.set_threshold(*self._before)


_BLOCKS: Final = _Blocks()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Run the block with few collections, also where threads run such blocks side by side.

    It is for code that makes many objects and no model: a cycle that holds a picture or a tensor would live longer.
    """
    _BLOCKS.enter()
    try:
        yield
    finally:
        _BLOCKS.leave()

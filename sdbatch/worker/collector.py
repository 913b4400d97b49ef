"""Keeps what a worker's process imports out of the sight of Python's collector.

    with left_to_stay(): import torch, diffusers --> no collection meanwhile, and none of it is looked at later

The libraries make half a million objects that live as long as the process. While they are imported Python looks through
them again and again for cycles, and later each time that a model is let go.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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

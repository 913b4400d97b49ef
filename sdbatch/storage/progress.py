"""Who is told that something long moves on: a copy, a digest, the wait for another process that copies.

    watched(Watch) around it --> moved() wherever bytes go by --> the clock of whoever waits begins anew

What moves has no bound of its own, since nobody knows how many bytes there are; what stands still has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

STILL_MAX_S: Final = 600.0
"""Longest that nothing may move where nobody set another bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Somebody who waits.

    Attributes:
        told: Called whenever something moved, from any thread.
        still_max_s: Longest that they wait while nothing moves.
    """

    told: Callable[[], None] = lambda: None
    still_max_s: float = STILL_MAX_S


_NOBODY: Final = Watch()
_WATCH: ContextVar[Watch] = ContextVar("sdbatch_watch", default=_NOBODY)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let somebody watch what this thread does in the block."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def watching() -> Watch:
    """Return who watches this thread. What it hands to other threads takes the watch along."""
    return _WATCH.get()


def moved() -> None:
    """Tell whoever watches this thread that it came further."""
    _WATCH.get().told()

r"""The worker's side: a few children that are used again and again, and who is to blame when one of them ends.

    request --> an idle child, or a new one --> pixels
                        \-- it ends --> a new child, which decodes nothing before this request --> pixels
                                                  \-- it ends too --> the request's row fails

A child that ended had perhaps been spoiled by what it decoded before; so only what ends a new child is blamed.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sdbatch.errors import RowError
from sdbatch.fetch.bounded.memory import MemoryBudget, picture_needs
from sdbatch.fetch.bounded.process import Bounds, ChildEnded, ChildProcess
from sdbatch.fetch.settings import PixelSettings
from sdbatch.types import Source

PICTURE_PROCESSOR_S: Final = 60.0
"""Processor seconds of one picture. 40 million pixels of the slowest format take some five."""

CLIP_PROCESSOR_S: Final = 300.0
"""Processor seconds for the frames of one clip; ffmpeg's own bound, in clips.py, is closer."""

WALL_S: Final = 400.0
"""Wall seconds of one source, for a child that waits for something or that a busy machine keeps waiting."""

SERVED_MAX: Final = 5_000
"""Requests that a child serves before a new one takes its place, so that what leaks stays small."""

KILLED_WAITS_S: Final = (2.0, 8.0, 30.0)
"""Waits before a request whose child was killed from outside is tried again: a machine without memory recovers."""


class BoundedDecoder:
    """Decodes the sources of requests in child processes. Thread-safe.

    Args:
        pixels_max: Most pixels, height times width, of a source.
        file_bytes_max: Most bytes of a source.
        num_children: How many sources are decoded at once, at most.
        picture_processor_s: Processor seconds of one picture.
        clip_processor_s: Processor seconds of one clip.
        wall_s: Wall seconds of one source.
    """

    def __init__(
        self,
        *,
        pixels_max: int,
        file_bytes_max: int,
        num_children: int,
        picture_processor_s: float = PICTURE_PROCESSOR_S,
        clip_processor_s: float = CLIP_PROCESSOR_S,
        wall_s: float = WALL_S,
    ) -> None:
        self._bounds = Bounds(
            pixels_max=pixels_max,
            file_bytes_max=file_bytes_max,
            processor_s={"picture": picture_processor_s, "clip": clip_processor_s},
            wall_s=wall_s,
        )
        self.budget = MemoryBudget(picture_needs(pixels_max, file_bytes_max))
        self._places = threading.BoundedSemaphore(num_children)
        self._lock = threading.Lock()
        self._idle: list[ChildProcess] = []
        self._alive: set[ChildProcess] = set()
        self.num_replaced = 0
        self._ending = weakref.finalize(self, _end_all, self._alive)

    def decode(self, sources: Sequence[Source], settings: PixelSettings, read: Callable[[Source], bytes]) -> Any:
        """Decode a request's sources.

        Args:
            sources: The sources.
            settings: What their pixels are brought to.
            read: Returns a source's bytes; it is called in this process, in the order of decoding.

        Returns:
            Pixels by role, as `decode_sources` returns them.

        Raises:
            RowError: When a source cannot be decoded, or ended the process that decodes it.
            DecoderUnavailable: When no process can be started.
        """
        waits_s = list(KILLED_WAITS_S)
        is_new = False
        while True:
            try:
                with self._child(is_new=is_new) as child:
                    was_used = child.num_served > 0
                    return child.decode(sources, settings, read, self.budget)
            except ChildEnded as end:
                if was_used:
                    is_new = True
                elif end.by_system and waits_s:
                    time.sleep(waits_s.pop(0))
                else:
                    raise end.failure from end

    def children(self) -> list[int]:
        """Return the process ids of the children that live."""
        with self._lock:
            return [child.pid for child in self._alive]

    def close(self) -> None:
        """End all children. They also end with this process, however it ends."""
        self._ending()

    @contextlib.contextmanager
    def _child(self, *, is_new: bool) -> Iterator[ChildProcess]:
        """Lend a child, and take it back when it is still sound."""
        with self._places:
            child = self._take(is_new=is_new)
            is_sound = False
            try:
                yield child
                is_sound = True
            except RowError:
                is_sound = True  # also when `read` raised it
                raise
            finally:
                if is_sound and child.num_served < SERVED_MAX:
                    with self._lock:
                        self._idle.append(child)
                else:
                    self._drop(child)

    def _take(self, *, is_new: bool) -> ChildProcess:
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None and not is_new:
            return idle
        if idle is not None:
            self._drop(idle)  # so that there are never more than there are places
        child = ChildProcess(self._bounds)
        with self._lock:
            self._alive.add(child)
        return child

    def _drop(self, child: ChildProcess) -> None:
        self.num_replaced += 1
        with self._lock:
            self._alive.discard(child)
        child.end()


def _end_all(children: set[ChildProcess]) -> None:
    while children:
        children.pop().end()

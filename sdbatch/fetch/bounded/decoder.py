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

PATIENCE_S: Final = 1.0
"""Wait for a child that others use, before one more is started: a start takes 0.3 CPU seconds, a picture some ms."""

KILLED_WAITS_S: Final = (2.0, 8.0, 30.0)
"""Waits before a request whose child was killed from outside is tried again: a machine without memory recovers."""


class BoundedDecoder:
    """Decodes the sources of requests in child processes. Thread-safe.

    Args:
        pixels_max: Most pixels, height times width, of a source.
        file_bytes_max: Most bytes of a source.
        num_children: How many sources are decoded at once, at most; there are more than one where that takes long.
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
        self._changed = threading.Condition()
        self._idle: list[ChildProcess] = []
        self._num_lent = 0
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
        with self._changed:
            return [child.pid for child in self._alive]

    def close(self) -> None:
        """End all children. They also end with this process, however it ends."""
        self._ending()

    @contextlib.contextmanager
    def _child(self, *, is_new: bool) -> Iterator[ChildProcess]:
        """Lend a child, and take it back when it is still sound."""
        with self._places:
            idle = self._taken(is_new=is_new)
            child = None
            is_sound = False
            try:
                child = idle or self._started()
                yield child
                is_sound = True
            except RowError:
                is_sound = True  # also when `read` raised it
                raise
            finally:
                self._given_back(child, is_sound=is_sound)

    def _taken(self, *, is_new: bool) -> ChildProcess | None:
        """Take an idle child, or the place of a new one."""
        with self._changed:
            if not is_new:
                self._changed.wait_for(lambda: self._idle or not self._num_lent, PATIENCE_S)
            idle = self._idle.pop() if self._idle else None
            self._num_lent += 1
        if idle is not None and is_new:
            self._drop(idle)  # so that there are never more than there are places
            return None
        return idle

    def _started(self) -> ChildProcess:
        child = ChildProcess(self._bounds)
        with self._changed:
            self._alive.add(child)
        return child

    def _given_back(self, child: ChildProcess | None, *, is_sound: bool) -> None:
        """Keep a sound child for the next request; end another one, and one that has served long."""
        is_kept = child is not None and is_sound and child.num_served < SERVED_MAX
        with self._changed:
            self._num_lent -= 1
            if child is not None and is_kept:
                self._idle.append(child)
            self._changed.notify_all()
        if child is not None and not is_kept:
            self._drop(child)

    def _drop(self, child: ChildProcess) -> None:
        self.num_replaced += 1
        with self._changed:
            self._alive.discard(child)
        child.end()


def _end_all(children: set[ChildProcess]) -> None:
    while children:
        children.pop().end()

"""Gets what many requests ask for only once: a source file, or its pixels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class KeptOnce(Generic[T]):
    """Keeps what was used last, for many threads; a thread that asks for what another is getting waits for it.

    Args:
        bytes_max: Most bytes that are kept; what was used longest ago is dropped first.
        size_bytes: Returns the bytes of one thing.
    """

    def __init__(self, bytes_max: int, size_bytes: Callable[[T], int]) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = size_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, get: Callable[[], T]) -> T:
        """Return what `get` returns for a key, or returned before.

        An error of `get` is raised in every thread that waits, and is not kept.
        """
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
            else:
                getting = self._kept[key] = Future[T]()
        if known is not None:
            return known.result()
        try:
            found = get()
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            getting.set_exception(error)
            raise
        getting.set_result(found)
        self._keep(self._size_bytes(found))
        return found

    def _keep(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
            for key in list(self._kept):
                if self._bytes <= self._bytes_max:
                    break
                if self._kept[key].done():
                    self._bytes -= self._size_bytes(self._kept.pop(key).result())

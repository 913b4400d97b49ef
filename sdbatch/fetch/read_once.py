"""Reads a file that many requests name only once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future


class ReadOnce:
    """Keeps the files that were used last, for many threads; a thread that asks for a file being read waits for it.

    Args:
        bytes_max: Most bytes that are kept; the file that was used longest ago is dropped first.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._files: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, read: Callable[[], bytes]) -> bytes:
        """Return the bytes that `read` returns for a key, or returned before.

        An error of `read` is raised in every thread that waits for the file, and is not kept.
        """
        with self._lock:
            known = self._files.get(key)
            if known is not None:
                self._files.move_to_end(key)
            else:
                reading = self._files[key] = Future[bytes]()
        if known is not None:
            return known.result()
        try:
            data = read()
        except BaseException as error:
            with self._lock:
                del self._files[key]
            reading.set_exception(error)
            raise
        reading.set_result(data)
        self._keep(len(data))
        return data

    def _keep(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
            for key in list(self._files):
                if self._bytes <= self._bytes_max:
                    break
                if self._files[key].done():
                    self._bytes -= len(self._files.pop(key).result())

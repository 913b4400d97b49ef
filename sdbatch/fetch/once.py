"""Files that many requests read are read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future


class ReadOnce:
    """Reads things that many ask for, from many threads: once each, while a number of bytes holds them.

    Args:
        bytes_max: Bound; what was asked for longest ago is forgotten first.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._found: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, read: Callable[[], bytes]) -> bytes:
        """Return what `read` gave for a key, now or before.

        What it raises is raised for all who wait for it, and forgotten.
        """
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            else:
                mine = self._found[key] = Future[bytes]()
        if found is not None:
            return found.result()
        try:
            data = read()
        except BaseException as error:
            with self._lock:
                del self._found[key]
            mine.set_exception(error)
            raise
        mine.set_result(data)
        self._keep(len(data))
        return data

    def _keep(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
            for key in list(self._found):
                if self._bytes <= self._bytes_max:
                    break
                if self._found[key].done():
                    self._bytes -= len(self._found.pop(key).result())

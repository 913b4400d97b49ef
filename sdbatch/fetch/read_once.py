"""Files that many requests name are read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future


class ReadOnce:
    """Keeps what was read last, for many threads; whoever asks for a file that is being read waits for it.

    Args:
        bytes_max: Most bytes that are kept; the file that was asked for longest ago is forgotten first.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._files: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, read: Callable[[], bytes]) -> bytes:
        """Return what `read` returns for a key, or returned before.

        What `read` raises is raised for everybody who waits for it, and is not kept.
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

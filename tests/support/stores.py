"""A real store in which the process that uses it dies, or a reply is lost, at a call of one's choice.

driver or worker --> FaultyStore (dies before or after its k-th call) --> LocalStore
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal, TypeVar

from sdbatch.storage import Entry, LocalStore
from sdbatch.storage.store import read_in_turn

Fault = Literal["die before", "die after", "lose reply"]
_T = TypeVar("_T")


class Killed(BaseException):
    """The process ended here: nothing that follows in it happens, and nobody handles it."""


class FaultyStore:
    """A local store that meets one fault; afterwards, and before, it is as it always is.

    Attributes:
        url: As the store's.
        is_local: As the store's.
        calls: Name and path of every call since the fault was set.
    """

    is_local = True

    def __init__(self, root: str) -> None:
        self.url = root
        self.real = LocalStore(root)
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._at: int | None = None
        self._fault: Fault = "die before"

    def set_fault(self, at: int | None, fault: Fault = "die before") -> None:
        """Meet a fault at the call `at` from now, counted from 0; None never."""
        with self._lock:
            self.calls, self._at, self._fault = [], at, fault

    @property
    def has_met(self) -> bool:
        """Whether the fault was met."""
        return self._at is not None and len(self.calls) > self._at

    def _call(self, name: str, path: str, call: Callable[[], _T], lost: _T | None = None) -> _T:
        with self._lock:
            self.calls.append((name, path))
            # A process that died calls nothing more, not even on its way out.
            is_dead = self._at is not None and self._fault != "lose reply" and len(self.calls) - 1 > self._at
            fault = self._fault if self._at == len(self.calls) - 1 else None
        if is_dead or fault == "die before":
            raise Killed
        result = call()
        if fault == "die after":
            raise Killed
        return lost if fault == "lose reply" and lost is not None else result

    def put_new(self, path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
        """A client that lost the reply asks again, and is told that the file exists."""
        return self._call("put_new", path, lambda: self.real.put_new(path, data, content_type, syncs=syncs), lost=False)

    def sync(self, folder: str) -> None:
        """An object store is not asked for this."""
        self.real.sync(folder)

    def put(self, path: str, data: bytes, content_type: str = "") -> None:
        self._call("put", path, lambda: self.real.put(path, data, content_type))

    def read(self, path: str) -> bytes:
        return self._call("read", path, lambda: self.real.read(path))

    def read_each(self, paths: Sequence[str]) -> Iterator[bytes | None]:
        """A bucket is asked for each."""
        return read_in_turn(self.read, paths)

    def stat(self, path: str) -> Entry:
        return self._call("stat", path, lambda: self.real.stat(path))

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        return self._call("list", folder, lambda: self.real.list(folder, deep=deep))

    def folders(self, folder: str) -> Sequence[str]:
        return self._call("folders", folder, lambda: self.real.folders(folder))

    def delete(self, path: str) -> None:
        self._call("delete", path, lambda: self.real.delete(path))

    def temporary(self) -> Sequence[Entry]:
        return self._call("temporary", "", self.real.temporary)

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        return self._call("read_range", path, lambda: self.real.read_range(path, start, stop))

    def open(self, path: str) -> BinaryIO:
        return self._call("open", path, lambda: self.real.open(path))


class CountingStore(FaultyStore):
    """A local store that meets no fault and tells which calls an object store would have been asked."""

    @property
    def lists(self) -> int:
        """Listings: of a prefix, or of the folders in one."""
        return sum(name in {"list", "folders"} for name, _ in self.calls)

    @property
    def gets(self) -> int:
        """Objects that were read, or looked for in vain."""
        return sum(name in {"read", "open"} for name, _ in self.calls)

    @property
    def heads(self) -> int:
        """Objects whose size or tag alone was asked for."""
        return sum(name == "stat" for name, _ in self.calls)

    @property
    def puts(self) -> int:
        """Objects that were written."""
        return sum(name in {"put", "put_new"} for name, _ in self.calls)

"""What is asked of a store, counted: calls of ours, and the requests that a bucket sees.

CountedStore(store) --> .calls      calls_of_folder() --> Counter of calls      requests_of_buckets() --> of operations
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdbatch.storage import LocalStore, Store

METHODS = frozenset(
    {"put_new", "put", "read", "read_each", "stat", "list", "folders", "delete", "temporary", "read_range", "open"}
)


class CountedStore:
    """A store whose calls are counted by name.

    Args:
        store: The store that does the work.

    Attributes:
        calls: Number of calls, by the method's name.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Return what the store has, and count a call of it."""
        found = getattr(self._store, name)
        if name not in METHODS:
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return found(*arguments, **options)

        return counted


@contextmanager
def calls_of_folder(root: str, calls: Counter[str]) -> Iterator[None]:
    """Count the calls of every store that this process opens on a local folder."""
    real = {name: getattr(LocalStore, name) for name in METHODS}

    def counting(name: str) -> Any:
        def counted(self: LocalStore, *arguments: Any, **options: Any) -> Any:
            calls[name] += self.url == root
            return real[name](self, *arguments, **options)

        return counted

    for name in METHODS:
        setattr(LocalStore, name, counting(name))
    try:
        yield
    finally:
        for name, method in real.items():
            setattr(LocalStore, name, method)


@contextmanager
def requests_of_buckets() -> Iterator[Counter[str]]:
    """Count the requests that S3 clients of this process send, by operation."""
    from aiobotocore.client import AioBaseClient  # type: ignore[import-untyped]

    calls: Counter[str] = Counter()
    real = AioBaseClient._make_api_call  # noqa: SLF001 -- every request goes through it

    async def counted(self: Any, operation: str, parameters: Any) -> Any:
        calls[operation] += 1
        return await real(self, operation, parameters)

    AioBaseClient._make_api_call = counted  # noqa: SLF001
    try:
        yield calls
    finally:
        AioBaseClient._make_api_call = real  # noqa: SLF001

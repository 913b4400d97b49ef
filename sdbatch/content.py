"""Files outside the campaign, known by their content: shards, sources, models.

    URLs --> digest_sources() --> digest by URL (at plan time)        read_source() --> bytes and digest (in the worker)

Local digests are sha256, remembered by path, size, mtime and inode; in object stores the ETag stands for the content.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from stat import S_ISREG

from sdbatch.config import Storage
from sdbatch.errors import SourceMissing, SourceTooLarge
from sdbatch.storage import Entry, Store, joined, open_store, parse_url, split

LIST_FROM = 8
"""Sources in one remote folder from which one listing is cheaper than asking for each."""


def cache_folder() -> Path:
    """Return the folder for things that can be made again: SDBATCH_CACHE, else the user's cache."""
    chosen = os.environ.get("SDBATCH_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdbatch"
    base.mkdir(parents=True, exist_ok=True)
    return base


def sha256_files(paths: Iterable[str]) -> dict[str, str]:
    """Return `sha256:...` of each local file, or `missing`; remembered by path, size, mtime and inode."""
    digests: dict[str, str] = {}
    database = sqlite3.connect(cache_folder() / "digests.sqlite", timeout=10, isolation_level=None)
    try:
        database.execute("CREATE TABLE IF NOT EXISTS digest (path TEXT PRIMARY KEY, mark TEXT, sha256 TEXT)")
        for path in paths:
            digests[path] = _sha256_remembered(database, path)
    finally:
        database.close()
    return digests


def _sha256_remembered(database: sqlite3.Connection, path: str) -> str:
    try:
        stat = os.stat(path)  # noqa: PTH116 -- called for every source of a manifest
        if not S_ISREG(stat.st_mode):
            return "missing"  # a pipe or a device is read for ever
        mark = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"
        row = database.execute("SELECT sha256 FROM digest WHERE path = ? AND mark = ?", (path, mark)).fetchone()
        if row is None:
            with Path(path).open("rb") as handle:
                row = (hashlib.file_digest(handle, "sha256").hexdigest(),)
            database.execute("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", (path, mark, row[0]))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return "missing"
    return f"sha256:{row[0]}"


def digest_sources(urls: Iterable[str], storage: Mapping[str, Storage]) -> dict[str, str]:
    """Return the content digest of each source: sha256 when local, ETag when remote, `missing` when not there."""
    local: list[str] = []
    remote: dict[str, list[str]] = {}
    for url in set(urls):
        if parse_url(url).is_local:
            local.append(url)
        else:
            remote.setdefault(split(url)[0], []).append(url)
    digests = sha256_files(local)
    for folder, members in remote.items():
        store = open_store(folder, storage)
        if len(members) >= LIST_FROM:
            tags = {joined(folder, entry.path): entry.etag for entry in store.list(deep=False)}
        else:
            found = {url: _stat_or_none(store, split(url)[1]) for url in members}
            tags = {url: entry.etag for url, entry in found.items() if entry}
        digests.update({url: f"etag:{tags[url]}" if url in tags else "missing" for url in members})
    return digests


def _stat_or_none(store: Store, path: str) -> Entry | None:
    try:
        return store.stat(path)
    except FileNotFoundError:
        return None


def read_source(url: str, storage: Mapping[str, Storage], bytes_max: int) -> tuple[bytes, str]:
    """Read a source and say what was read.

    Returns:
        The bytes and the digest in the form the plan used.

    Raises:
        SourceMissing: When it is not there.
        SourceTooLarge: When it is longer than `bytes_max`.
    """
    folder, name = split(url)
    store = open_store(folder, storage)
    try:
        if store.is_local and not S_ISREG(os.stat(joined(folder, name)).st_mode):  # noqa: PTH116 -- as above
            raise SourceMissing(f"{url}: is no file")
        entry = store.stat(name)
        if entry.size_bytes > bytes_max:
            raise SourceTooLarge(f"{url}: {entry.size_bytes} bytes is over {bytes_max}")
        data = store.read(name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceMissing(f"{url}: not there") from error
    return data, f"etag:{entry.etag}" if entry.etag else f"sha256:{hashlib.sha256(data).hexdigest()}"


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

"""sha256 of local files, remembered, so that weights are read once and not for every run."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import sqlite3
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, BinaryIO, Final

from sdbatch.local_faults import local_faults_named
from sdbatch.storage.cache import cache_folder
from sdbatch.storage.progress import moved

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_CHUNK_BYTES: Final = 4 << 20
_NOT_THERE = frozenset({errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def _open_anywhere(path: str) -> BufferedReader:
    return Path(path).open("rb")


def sha256_files(paths: Iterable[str], open_file: Callable[[str], BufferedReader] = _open_anywhere) -> dict[str, str]:
    """Return `sha256:...` of each local file, or `missing`.

    A digest is remembered with the size, the mtime and the inode of the file. For a link they are those of the file
    that it leads to, so a link that is turned to another file is digested again.

    Args:
        paths: The files.
        open_file: Opens one that is not known yet; see `AllowList.open` for files that strangers can turn links to.
    """
    folder = cache_folder()
    with local_faults_named(folder, "SDBATCH_CACHE"):
        return _sha256_of(folder, paths, open_file)


def _sha256_of(folder: Path, paths: Iterable[str], open_file: Callable[[str], BufferedReader]) -> dict[str, str]:
    digests: dict[str, str] = {}
    database = sqlite3.connect(folder / "digests.sqlite", timeout=10, isolation_level=None)
    try:
        database.execute("CREATE TABLE IF NOT EXISTS digest (path TEXT PRIMARY KEY, mark TEXT, sha256 TEXT)")
        for path in paths:
            digests[path] = _sha256_remembered(database, path, open_file)
    finally:
        database.close()
    return digests


def sha256_of(handle: BinaryIO, size_bytes: float = math.inf) -> Hash:
    """Return the digest of what an opened file holds from here on, at most so many bytes; tell that it moves on."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while size_bytes and (count := handle.readinto(buffer[: int(min(size_bytes, _CHUNK_BYTES))])):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        size_bytes -= count
        moved()
    return digest


def mark_of(path: str) -> str | None:
    """Return size, mtime and inode of a regular file, as one word; None for anything else.

    Raises:
        FileNotFoundError, NotADirectoryError: When there is nothing.
    """
    return _mark(os.stat(path))  # noqa: PTH116 -- called for every source of a manifest


def _mark(status: os.stat_result) -> str | None:
    if not S_ISREG(status.st_mode):
        return None  # a pipe or a device would be read for ever
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _sha256_remembered(database: sqlite3.Connection, path: str, open_file: Callable[[str], BufferedReader]) -> str:
    try:
        mark = mark_of(path)
        if mark is None:
            return "missing"
        row = database.execute("SELECT sha256 FROM digest WHERE path = ? AND mark = ?", (path, mark)).fetchone()
        if row is None:
            with open_file(path) as handle:
                mark = _mark(os.fstat(handle.fileno()))  # of what is digested, whatever lies at the path by now
                row = (sha256_of(handle).hexdigest(),)
            database.execute("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", (path, mark, row[0]))
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return "missing"
    return f"sha256:{row[0]}"

"""sha256 of local files, remembered by path, size, mtime and inode."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from sdbatch.storage.cache import cache_folder


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

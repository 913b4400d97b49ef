"""A folder on this machine's disk for one process; the next process removes it when this one is killed.

    Scratch() --> folder, its lock held          the next Scratch() --> folders whose lock nobody holds are removed

The lock is the kernel's (flock): it goes with its process, however that ends, and holds between containers that share
the disk but not their process ids.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import time
from pathlib import Path
from typing import TextIO

PREFIX = "sdbatch-spool-"
LOCK = ".lock"


class Scratch:
    """A locked folder that only this user may enter.

    Args:
        prefix: Beginning of its name; what killed processes left with the same beginning is removed.
        base: Folder that it lies in; None for the temporary one.
        unlocked_max_s: Age from which a folder without a lock counts as left, too; None leaves such folders alone.

    Attributes:
        folder: Where it lies.
    """

    def __init__(self, prefix: str = PREFIX, base: str | None = None, *, unlocked_max_s: float | None = None) -> None:
        base = base or tempfile.gettempdir()
        _remove_left(Path(base), prefix, unlocked_max_s)
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))  # 0700
        fresh = self.folder / f"{LOCK}-new"
        self._lock = fresh.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.folder / LOCK)  # only now may others look for its owner

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_left(base: Path, prefix: str, unlocked_max_s: float | None) -> None:
    """Remove the folders that killed processes left behind."""
    for folder in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # somebody else's, or in use
            if _is_left(folder, unlocked_max_s):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path, unlocked_max_s: float | None) -> bool:
    if not (folder / LOCK).exists():
        return unlocked_max_s is not None and time.time() - folder.stat().st_mtime > unlocked_max_s
    with (folder / LOCK).open("r+") as lock:
        return _is_free(lock)


def _is_free(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

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
from pathlib import Path
from typing import TextIO

PREFIX = "sdbatch-spool-"
LOCK = ".lock"


class Scratch:
    """A locked folder.

    Attributes:
        folder: Where it lies.
    """

    def __init__(self) -> None:
        _remove_left()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        fresh = self.folder / f"{LOCK}-new"
        self._lock = fresh.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.folder / LOCK)  # only now may others look for its owner

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_left() -> None:
    """Remove the folders that killed processes left behind."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open("r+") as lock:  # somebody else's, or in use
            if _is_free(lock):
                shutil.rmtree(path.parent, ignore_errors=True)


def _is_free(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""One process of a machine makes a folder while the others wait and see that it comes further.

    turn(lock) --> the one that holds it: every moved() touches the lock file
               --> those that wait: the file was touched --> moved() of their own; it stood still for too long --> error

The lock is the kernel's (flock): it goes with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from sdbatch.errors import ModelLoadFailed
from sdbatch.storage.progress import Watch, watched, watching

POLL_S: Final = 0.2
TOUCH_EVERY_S: Final = 0.5


@contextmanager
def turn(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait for it as long as the process that holds it comes further.

    Args:
        lock: The file.
        what: What is made under it, for messages.

    Raises:
        ModelLoadFailed: When the process that holds it stood still for as long as this thread is waited for.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait(file, lock, what)
        os.utime(file)
        with watched(_seen_by_others(file, watching())):
            yield
    finally:
        os.close(file)


@contextmanager
def held_if_free(lock: Path) -> Iterator[bool]:
    """Hold a lock while the block runs, unless another process holds it; give whether this one does."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _is_taken(file)
    finally:
        os.close(file)


def _is_taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: int, lock: Path, what: str) -> None:
    watch = watching()
    touched, since_s = -1, time.monotonic()
    while not _is_taken(file):
        now_s, touched_now = time.monotonic(), os.fstat(file).st_mtime_ns
        if touched_now != touched:
            touched, since_s = touched_now, now_s
            watch.told()
        elif now_s - since_s > watch.still_max_s:
            raise ModelLoadFailed(
                f"{what}: another process of this machine makes the local copy, holds {lock} and came no further for "
                f"{watch.still_max_s:g} s; look at that process, and at the store"
            )
        time.sleep(POLL_S)


def _seen_by_others(file: int, watch: Watch) -> Watch:
    touched_s = time.monotonic()

    def told() -> None:
        nonlocal touched_s
        watch.told()
        if time.monotonic() - touched_s >= TOUCH_EVERY_S:
            touched_s = time.monotonic()
            os.utime(file)

    return replace(watch, told=told)

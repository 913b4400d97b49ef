"""Copies files of a store into a folder: several files at once, several ranges of each, taken up after a kill.

    entries --> copy_files() --> FOLDER/files/... + FOLDER/ledger.jsonl --> sha256 of each

    read_range() in RANGES_AT_ONCE threads --> put in order, per file --> written, digested

A file grows from its beginning to its end, so that what lies there of one that was broken off is its beginning. The
ledger names the object of which it is one (size and tag), and the digest of those that are whole. The folder is for one
process at a time, and for one boot of the machine: what a dead process wrote is there, what a dead machine wrote may
not be.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sdbatch.errors import LocalFault, ModelLoadFailed
from sdbatch.local_faults import local_faults_named
from sdbatch.storage import Entry, Store
from sdbatch.storage.digests import mark_of, sha256_of
from sdbatch.storage.progress import watched, watching

RANGE_BYTES: Final = 8 << 20
RANGES_AT_ONCE: Final = 16
"""Requests at once; with `RANGE_BYTES` they bound the memory of a copy: 128 MiB, and as much inside the client."""
FILES_AT_ONCE: Final = 8
SYNC_BYTES: Final = 256 << 20
"""Written between two waits for the disk, so that none of them is long."""

FILES: Final = "files"
LEDGER: Final = "ledger.jsonl"


def copy_files(
    store: Store, entries: Sequence[Entry], folder: Path, make_room: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Copy files into `folder`/files; what lies there whole already, by the ledger, is not fetched again.

    Args:
        store: Where they lie.
        entries: The files, as they were listed.
        folder: For this copy alone.
        make_room: Called when the disk has too little space, before that is an error.

    Returns:
        `sha256:...` of each by its path.

    Raises:
        LocalFault: When the disk has too little space for what is missing, or fails.
        ModelLoadFailed: When a file changed while it was copied.
        StoreUnavailable, StoreRefused: When the store does not give a file.
    """
    with local_faults_named(folder, "SDBATCH_CACHE"):
        (folder / FILES).mkdir(parents=True, exist_ok=True)
        transfer = _Transfer(store, folder)
        transfer.keep(entries)
        needed_bytes = transfer.missing_bytes(entries)
        if needed_bytes > _free_bytes(folder):
            make_room()
        if needed_bytes > (free_bytes := _free_bytes(folder)):
            raise LocalFault(
                f"{store.url}: the local copy needs {needed_bytes / 2**30:.2f} GiB more, and {folder.parent} has "
                f"{free_bytes / 2**30:.2f} GiB free; free some space there, or name a larger disk with SDBATCH_CACHE"
            )
        return transfer.copy(entries)


class _Transfer:
    """One copy on its way."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._files = folder / FILES
        self._ledger = folder / LEDGER
        self._watch = watching()
        self._lock = threading.Lock()
        self._permits = threading.BoundedSemaphore(RANGES_AT_ONCE)
        self._stopped = threading.Event()
        self._whole: dict[str, str] = {}
        self._begun: set[str] = set()

    def keep(self, entries: Sequence[Entry]) -> None:
        """Find what an earlier process left of these very objects, and remove everything else."""
        wanted = {entry.path: _object_of(entry) for entry in entries}
        last = {line["path"]: line for line in _lines(self._ledger)}  # what stands last of a file is what lies there
        for path, line in last.items():
            file = self._files / path
            if wanted.get(path) != line.get("object") or file.is_symlink() or not file.is_file():
                continue
            self._begun.add(path)
            if "sha256" in line and mark_of(str(file)) == line.get("mark"):
                self._whole[path] = line["sha256"]
        for left in [path for path in self._files.rglob("*") if not path.is_dir() or path.is_symlink()]:
            if str(left.relative_to(self._files)) not in self._begun:
                left.unlink()

    def missing_bytes(self, entries: Sequence[Entry]) -> int:
        """Return how many bytes do not lie on this machine yet."""
        return sum(
            entry.size_bytes - (_length(self._files / entry.path) if entry.path in self._begun else 0)
            for entry in entries
            if entry.path not in self._whole
        )

    def copy(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Fetch what is missing; return the digest of every file."""
        missing = [entry for entry in entries if entry.path not in self._whole]
        missing.sort(key=lambda entry: -entry.size_bytes)  # the longest first, so that all end together
        with (
            ThreadPoolExecutor(RANGES_AT_ONCE, "sdbatch-range") as ranges,
            ThreadPoolExecutor(FILES_AT_ONCE, "sdbatch-file") as files,
        ):
            try:
                copies = [files.submit(self._copy, entry, ranges) for entry in missing]
                errors = [error for copy in copies if (error := copy.exception()) is not None]
            except BaseException:  # a signal
                self._stopped.set()
                raise
        if errors:  # one that only stopped because of another's error says nothing
            raise next((error for error in errors if not isinstance(error, _StoppedError)), errors[0])
        return {entry.path: self._whole[entry.path] for entry in entries}

    def _copy(self, entry: Entry, ranges: ThreadPoolExecutor) -> None:
        """Fetch one file, or the rest of it."""
        if self._stopped.is_set():
            raise _StoppedError
        try:
            with watched(self._watch):
                self._fetch(entry, ranges)
        except BaseException:
            self._stopped.set()  # the other files stop at their next range
            raise

    def _fetch(self, entry: Entry, ranges: ThreadPoolExecutor) -> None:
        target = self._files / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.path not in self._begun:
            target.unlink(missing_ok=True)
            self._note(entry)
        with target.open("a+b") as copy:
            copy.seek(0)
            if os.fstat(copy.fileno()).st_size > entry.size_bytes:
                copy.truncate(0)
            digest = sha256_of(copy)  # the beginning that an earlier process wrote
            unsynced = place = copy.tell()
            with closing(self._parts(entry, place, ranges)) as parts:
                for part in parts:
                    copy.write(part)
                    digest.update(part)
                    unsynced += len(part)
                    if unsynced >= SYNC_BYTES:
                        _sync(copy)
                        unsynced = 0
                    self._watch.told()
            _sync(copy)
        sha256 = f"sha256:{digest.hexdigest()}"
        self._note(entry, mark=mark_of(str(target)), sha256=sha256)
        self._whole[entry.path] = sha256

    def _parts(self, entry: Entry, start: int, ranges: ThreadPoolExecutor) -> Generator[bytes, None, None]:
        """Yield a file's bytes from `start` on, in order, while further ranges of it are on their way."""
        starts = deque(range(start, entry.size_bytes, RANGE_BYTES))
        on_their_way: deque[tuple[int, Future[bytes]]] = deque()
        try:
            while (starts or on_their_way) and not self._stopped.is_set():
                # A file with nothing on its way waits for a permit; one that has something only takes what is free.
                while starts and self._permits.acquire(blocking=not on_their_way):
                    begin = starts.popleft()
                    size = min(RANGE_BYTES, entry.size_bytes - begin)
                    future = ranges.submit(self._store.read_range, entry.path, begin, begin + size)
                    on_their_way.append((size, future))
                size, future = on_their_way.popleft()
                try:
                    part = future.result()
                finally:
                    self._permits.release()
                if len(part) != size:
                    raise ModelLoadFailed(f"{self._store.url}/{entry.path}: changed while it was copied; run again")
                yield part
        finally:
            for _ in on_their_way:
                self._permits.release()
        if self._stopped.is_set():
            raise _StoppedError

    def _note(self, entry: Entry, **more: Any) -> None:
        line = json.dumps({"path": entry.path, "object": _object_of(entry), **more})
        with self._lock, self._ledger.open("a") as ledger:
            ledger.write(f"{line}\n")


class _StoppedError(Exception):
    """Another file of the copy failed, and its error is the one that counts."""


def _object_of(entry: Entry) -> str:
    return f"{entry.size_bytes} {entry.etag}"


def _lines(ledger: Path) -> list[Mapping[str, Any]]:
    """Return the lines of a ledger; the last one may be torn."""
    found: list[Mapping[str, Any]] = []
    try:
        text = ledger.read_text(errors="replace")
    except FileNotFoundError:
        return found
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            found.append(value)
    return found


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _sync(file: Any) -> None:
    file.flush()
    os.fdatasync(file.fileno())

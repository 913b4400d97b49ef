"""A folder on a local disk, or on a network file system with hard links, as a store.

LocalStore   a campaign: everything beneath the folder's descriptor, no link followed, regular files only
LinkedStore  a folder of models, sources or shards, whose links a person laid: they are followed when it is read
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import logging
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final

from sdbatch.errors import StoreRefused
from sdbatch.local_faults import LOCAL_FAULTS, local_fault
from sdbatch.points import reached
from sdbatch.storage.beneath import DEPTH_MAX, kind_of, opened_file, opened_folder
from sdbatch.storage.locations import leads_out
from sdbatch.storage.store import Entry, read_bytes_max, read_in_turn

LOG = logging.getLogger("sdbatch.storage")
_TEMPORARY: Final = ".tmp"
_BLOCK_BYTES: Final = 512
"""What `st_blocks` counts in, whatever the file system's own blocks are."""


class LocalStore:
    """A folder on a local disk or a network file system with hard links, such as a campaign."""

    is_local = True
    _follows = False
    """Whether links to files and folders are followed when they are read; those that are written to never are."""

    def __init__(self, root: str) -> None:
        self.url = root
        self._left_out: set[str] = set()

    def put_new(self, path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
        """See `Store`. A hard link is exclusive; fsspec's local `mode="create"` is not (300 keys had 301 winners)."""
        with self._writing(path) as (folder, name, temporary_folder):
            temporary = self._temporary(temporary_folder, data)
            try:
                os.link(temporary, name, src_dir_fd=temporary_folder, dst_dir_fd=folder, follow_symlinks=False)
                created = True
            except FileExistsError:
                # NFS answers EEXIST to the second try of a link whose reply was lost; the file then has two names.
                created = os.stat(temporary, dir_fd=temporary_folder).st_nlink == 2
            except OSError as error:
                raise self._link_refused(error, path) from error
            finally:
                os.unlink(temporary, dir_fd=temporary_folder)
            if syncs:
                os.fsync(folder)  # so that a new name survives a power cut
        return created

    def sync(self, folder: str) -> None:
        """See `Store`. The files themselves were written to the disk before they got their names."""
        with contextlib.suppress(FileNotFoundError), self._opened(folder) as handle:
            os.fsync(handle)

    def put(self, path: str, data: bytes, content_type: str = "") -> None:
        """See `Store`. On a full disk a file that is not longer than what it replaces is written over the old one."""
        with self._writing(path) as (folder, name, temporary_folder):
            try:
                temporary = self._temporary(temporary_folder, data)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT} and _written_over(folder, name, data):
                    return
                raise
            try:
                os.replace(temporary, name, src_dir_fd=temporary_folder, dst_dir_fd=folder)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=temporary_folder)
                if error.errno == errno.EXDEV:
                    raise self._link_refused(error, path) from error
                raise

    def read(self, path: str) -> bytes:
        """See `Store`."""
        with self._reading(path) as (folder, name):
            return self._content(folder, name, path)

    def read_each(self, paths: Sequence[str]) -> Iterator[bytes | None]:
        """See `Store`."""
        placed = [(_parts(self.url, path), path) for path in paths]
        for folders, of_folder in groupby(placed, lambda place: place[0][:-1]):
            inside = list(of_folder)
            try:
                with self._opened("/".join(folders)) as folder:
                    yield from read_in_turn(partial(self._content_in, folder), inside)
            except FileNotFoundError:  # the folder itself is not there
                yield from [None] * len(inside)

    def stat(self, path: str) -> Entry:
        """See `Store`."""
        with self._reading(path) as (folder, name):
            file = opened_file(folder, name, f"{self.url}/{path}", follows=self._follows)
            try:
                status = os.fstat(file)
            finally:
                os.close(file)
        return _entry(path, status)

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        """See `Store`. What lies in `.tmp/` is not listed; what is no regular file is left out, with a line."""
        self._refuse_a_file()
        return self._listed(folder, deep=deep)

    def list_linked(self, suffixes: tuple[str, ...]) -> builtins.list[Entry]:
        """Return every file below the folder that ends in one of `suffixes`; go where links to files and folders lead.

        The cache of a model hub is made of links, and one component's folder is shared by links.

        Raises:
            StoreRefused: When a link leads nowhere, or back to a folder that it lies in.
        """
        return sorted(_walk_linked(self, "", (), suffixes), key=lambda entry: entry.path)

    def folders(self, folder: str) -> Sequence[str]:
        """See `Store`."""
        self._refuse_a_file()
        try:
            with self._opened(folder) as handle, os.scandir(handle) as items:
                return sorted(item.name for item in items if item.is_dir(follow_symlinks=self._follows))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def temporary(self) -> Sequence[Entry]:
        """See `Store`."""
        return self._listed(_TEMPORARY, deep=False)

    def delete(self, path: str) -> None:
        """See `Store`. Of a link the link itself goes."""
        try:
            parts = _parts(self.url, path)
            with self._named(path), opened_folder(self.url, parts[:-1]) as folder:
                os.unlink(parts[-1], dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """See `Store`."""
        with self.open(path) as handle:
            handle.seek(start)
            return handle.read(stop - start)

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        with self._reading(path) as (folder, name):
            file = opened_file(folder, name, f"{self.url}/{path}", follows=self._follows)
        return os.fdopen(file, "rb")

    def _content_in(self, folder: int, place: tuple[tuple[str, ...], str]) -> bytes:
        """Return what is in a file of an opened folder, by its names and its path."""
        parts, path = place
        with self._named(path):
            return self._content(folder, parts[-1], path)

    def _content(self, folder: int, name: str, path: str) -> bytes:
        """Return what is in a file of an opened folder; `path` names it in messages and says how long it may be."""
        file = opened_file(folder, name, f"{self.url}/{path}", follows=self._follows)
        with os.fdopen(file, "rb", buffering=0) as handle:
            size_bytes, most = os.fstat(file).st_size, read_bytes_max(path)
            if size_bytes > most:
                raise StoreRefused(f"{self.url}/{path}: has {size_bytes} bytes, and {most} are read of such a file")
            return handle.read()

    # --- folders ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
        """Give the descriptor of a folder that is read."""
        with self._named(folder), self._beneath(_parts(self.url, folder)) as handle:
            yield handle

    def _beneath(self, parts: tuple[str, ...]) -> AbstractContextManager[int]:
        """Give the descriptor of a folder, by its names from here on."""
        return opened_folder(self.url, parts)

    @contextmanager
    def _reading(self, path: str) -> Iterator[tuple[int, str]]:
        """Give the descriptor of the folder in which a file lies that is read, and its name there."""
        parts = _parts(self.url, path)
        if not parts:
            raise IsADirectoryError(f"{self.url}: is a folder")
        with self._named(path), self._beneath(parts[:-1]) as folder:
            yield folder, parts[-1]

    @contextmanager
    def _writing(self, path: str) -> Iterator[tuple[int, str, int]]:
        """Give the folder of a file that is written, its name there, and the folder of unfinished files."""
        *folders, name = _parts(self.url, path)
        with (
            self._named(path, writes=True),
            opened_folder(self.url, tuple(folders), makes=True) as folder,
            opened_folder(self.url, (_TEMPORARY,), makes=True) as temporary_folder,
        ):
            yield folder, name, temporary_folder

    @contextmanager
    def _named(self, path: str, *, writes: bool = False) -> Iterator[None]:
        """Say in one line what a file system refuses: a fault of this machine, missing rights, a file in the way."""
        try:
            yield
        except OSError as error:
            if fault := local_fault(error, self.url):
                raise fault from error
            if isinstance(error, NotADirectoryError) and not self._follows:
                self._refuse_a_file()
            if isinstance(error, PermissionError) or (writes and error.errno not in LOCAL_FAULTS):
                verb = "written to" if writes else "read"
                raise StoreRefused(f"{self.url}: cannot be {verb}: {path}: {error.strerror or error}") from error
            raise

    def _refuse_a_file(self) -> None:
        """Refuse a store that is a file, or would lie beneath one."""
        if os.path.isdir(self.url):  # noqa: PTH112 -- called for each listing
            return
        there = next(place for place in (Path(self.url), *Path(self.url).parents) if place.exists())
        if not there.is_dir():
            raise StoreRefused(f"{there}: is a file, not a folder")

    def _listed(self, folder: str, *, deep: bool) -> builtins.list[Entry]:
        entries: builtins.list[Entry] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._opened(folder) as handle:
            self._walk(handle, folder, entries, 0 if deep else DEPTH_MAX)
        return sorted(entries, key=lambda entry: entry.path)

    def _walk(self, handle: int, folder: str, entries: builtins.list[Entry], depth: int) -> None:
        inner: builtins.list[str] = []
        with os.scandir(handle) as items:
            for item in items:
                path = f"{folder}/{item.name}" if folder else item.name
                with contextlib.suppress(FileNotFoundError):  # removed while we looked
                    if item.is_dir(follow_symlinks=False):
                        if item.name != _TEMPORARY:
                            inner.append(item.name)
                        continue
                    status = item.stat(follow_symlinks=self._follows)
                    if stat.S_ISREG(status.st_mode):
                        entries.append(_entry(path, status))
                    else:
                        self._say_left_out(path, status.st_mode)
        for name in inner if depth < DEPTH_MAX else ():
            path = f"{folder}/{name}" if folder else name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
                try:
                    self._walk(below, path, entries, depth + 1)
                finally:
                    os.close(below)

    def _say_left_out(self, path: str, mode: int) -> None:
        """Say once of what is neither a file nor a folder that it is left out; of a linked folder in a read one not."""
        if path not in self._left_out and not (self._follows and stat.S_ISDIR(mode)):
            self._left_out.add(path)
            LOG.error("%s/%s is %s, not a file, and is left out", self.url, path, kind_of(mode))

    # --- writing ----------------------------------------------------------------------------------------------------

    def _temporary(self, folder: int, data: bytes) -> str:
        """Write a file under a name of its own and to the disk; when that fails, nothing of it stays."""
        name = uuid.uuid4().hex
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
        reached("amid-a-file")
        return name

    def _link_refused(self, error: OSError, path: str) -> Exception:
        """Return what a link that failed means: two file systems, none that takes links, or a fault of the machine."""
        if fault := local_fault(error, self.url):
            return fault
        if error.errno == errno.EXDEV:
            folder = path.rpartition("/")[0] or "the campaign"
            return StoreRefused(
                f"{self.url}: {_TEMPORARY} and {folder} lie on two file systems, and a finished file cannot be linked "
                "from one to the other; a campaign's folders lie on one file system"
            )
        if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            return StoreRefused(
                f"{self.url}: hard links do not work here ({error.strerror}), and without them nothing is exactly "
                "once; name a folder on another file system, or a bucket"
            )
        return error


class LinkedStore(LocalStore):
    """A folder of models, sources or shards: links to files and folders are followed when it is read."""

    _follows = True

    def _beneath(self, parts: tuple[str, ...]) -> AbstractContextManager[int]:
        return opened_folder(str(Path(self.url, *parts)))


def _parts(url: str, path: str) -> tuple[str, ...]:
    """Return the names of a path. Paths come from a campaign's files too, so one that leads out of it is refused."""
    if leads_out(path):
        raise StoreRefused(f"{url}: the path {path!r} leads out of it")
    return tuple(part for part in path.split("/") if part not in {"", "."})


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(path=path, size_bytes=status.st_size, etag="", modified_s=status.st_mtime)


def _written_over(folder: int, name: str, data: bytes) -> bool:
    """Write over a file of the same folder, when it has the disk's blocks for it already; return whether it had."""
    try:
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_blocks * _BLOCK_BYTES < len(data):
            return False
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
    finally:
        os.close(file)
    return True


def _walk_linked(store: LocalStore, folder: str, above: tuple[str, ...], suffixes: tuple[str, ...]) -> Iterator[Entry]:
    top = Path(store.url) / folder
    here = os.path.realpath(top)
    if here in above:
        raise StoreRefused(f"{store.url}: the link {folder} leads back to a folder that it lies in")
    if not top.exists():
        return
    with os.scandir(top) as items:
        names = [(item.name, item.is_dir()) for item in items if item.name != _TEMPORARY]
    for name, is_folder in names:
        path = f"{folder}/{name}" if folder else name
        if is_folder:
            yield from _walk_linked(store, path, (*above, here), suffixes)
        elif name.endswith(suffixes):
            try:
                yield store.stat(path)
            except FileNotFoundError as error:
                raise StoreRefused(f"{store.url}: the link {path} leads nowhere") from error

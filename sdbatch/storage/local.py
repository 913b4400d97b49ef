"""A folder on a local disk, or on a network file system with hard links, as a store."""

from __future__ import annotations

import builtins
import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sdbatch.errors import StoreRefused
from sdbatch.points import reached
from sdbatch.storage.locations import leads_out
from sdbatch.storage.store import Entry

_TEMPORARY = ".tmp"


class LocalStore:
    """A folder on a local disk or a network file system with hard links."""

    is_local = True

    def __init__(self, root: str) -> None:
        self.url = root
        self._root = Path(root)
        self._made: set[Path] = set()

    def put_new(self, path: str, data: bytes, content_type: str = "") -> bool:
        """See `Store`. A hard link is exclusive; fsspec's local `mode="create"` is not (300 keys had 301 winners)."""
        target = self._target(path)
        temporary = self._temporary(data)
        try:
            os.link(temporary, target)
            created = True
        except FileExistsError:
            # NFS answers EEXIST to the second try of a link whose reply was lost; the file then has two names.
            created = temporary.stat().st_nlink == 2
        except OSError as error:
            raise StoreRefused(f"{self.url}: hard links do not work here ({error.strerror})") from error
        finally:
            temporary.unlink()
        _sync_folder(target.parent)
        return created

    def put(self, path: str, data: bytes, content_type: str = "") -> None:
        """See `Store`."""
        target = self._target(path)
        self._temporary(data).replace(target)

    def read(self, path: str) -> bytes:
        """See `Store`."""
        return self._file(path).read_bytes()

    def stat(self, path: str) -> Entry:
        """See `Store`."""
        status = self._file(path).stat()
        return Entry(path=path, size_bytes=status.st_size, etag="", modified_s=status.st_mtime)

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        """See `Store`. What lies in `.tmp/` is not listed."""
        self._refuse_a_file()
        return _walk(self, folder, deep=deep)

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
            with os.scandir(self._file(folder)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def temporary(self) -> Sequence[Entry]:
        """See `Store`."""
        return _walk(self, _TEMPORARY, deep=False)

    def delete(self, path: str) -> None:
        """See `Store`."""
        self._file(path).unlink(missing_ok=True)

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """See `Store`."""
        with self.open(path) as handle:
            handle.seek(start)
            return handle.read(stop - start)

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return self._file(path).open("rb")

    def _refuse_a_file(self) -> None:
        if self._root.exists() and not self._root.is_dir():
            raise StoreRefused(f"{self.url}: is a file, not a folder")

    def _file(self, path: str) -> Path:
        """Return where a path lies. Paths come from a campaign's files too, so one that leads out of it is refused."""
        if leads_out(path):
            raise StoreRefused(f"{self.url}: the path {path!r} leads out of it")
        return self._root / path

    def _target(self, path: str) -> Path:
        target = self._file(path)
        if target.parent not in self._made:
            self._make(target.parent)
            self._made.add(target.parent)
        return target

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefused(f"{self.url}: cannot be written to: {folder}: {error.strerror}") from error

    def _temporary(self, data: bytes) -> Path:
        folder = self._root / _TEMPORARY
        file = folder / uuid.uuid4().hex
        try:
            handle = file.open("xb")
        except FileNotFoundError:
            self._make(folder)
            handle = file.open("xb")
        except OSError as error:
            raise StoreRefused(f"{self.url}: cannot be written to: {error.strerror}") from error
        with handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        reached("amid-a-file")
        return file


def _walk(store: LocalStore, folder: str, *, deep: bool) -> list[Entry]:
    root = Path(store.url)
    entries = []
    for parent, folders, names in os.walk(root / folder):
        folders[:] = [name for name in folders if deep and name != _TEMPORARY]
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed while we looked
                entries.append(store.stat(str((Path(parent) / name).relative_to(root))))
    return sorted(entries, key=lambda entry: entry.path)


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


def _sync_folder(folder: Path) -> None:
    """Write a folder's names to disk, so that a new name survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

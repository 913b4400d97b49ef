"""The one place that touches files and buckets.

    URL --> parse_url() --> LocalStore | ObjectStore   (put_new = put-if-absent, the primitive a campaign stands on)

Both stores promise the same: what can be seen is whole, and of several writers of one new path exactly one wins.
Build a store inside the process that uses it; an fsspec filesystem does not survive a fork.
"""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from sdbatch.config import Storage
from sdbatch.errors import StoreRefused, UserError
from sdbatch.retries import error_code, retried

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""Object stores by scheme, with the fsspec package that reaches them. Each of these packages turns `mode="create"` into
one conditional request (If-None-Match, ifGenerationMatch=0), read in s3fs 2026.9, gcsfs 2026.9 and adlfs."""

SCHEMES = ("file", *PACKAGES)
"""What a job may name. fsspec knows some fifty more (http, ssh, zip, chained ones); none is ever opened. Most of them,
its own local and memory ones too, look first and write then, so that two writers of one path can both win."""

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Silence of a connection, not length of a transfer."""
_S3FS_TRIES = 3
"""s3fs' own, for a request in the middle of an opened file. botocore makes none: layers of tries would multiply."""

NO_PUT_IF_ABSENT = "the store has no put-if-absent, so it cannot promise exactly once"
_EXISTS_CODES = {"PreconditionFailed", "412"}
_UNCONDITIONAL_CODES = {"NotImplemented", "501"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A parsed URL.

    Attributes:
        scheme: `file` for local paths.
        path: Absolute local path, or `bucket/key`.
    """

    scheme: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's file system."""
        return self.scheme == "file"

    @property
    def url(self) -> str:
        """The URL again; a plain path when local."""
        return self.path if self.is_local else f"{self.scheme}://{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One listed file.

    Attributes:
        path: Relative to what was listed.
        size_bytes: Length.
        etag: Content tag of an object store, "" on local disks.
        modified_s: Last change by the store's own clock, seconds since 1970; infinite when it does not say.
    """

    path: str
    size_bytes: int
    etag: str
    modified_s: float


def parse_url(url: str) -> Location:
    """Split a path or URL; relative paths are taken from the working directory.

    Raises:
        UserError: On chained URLs (`a::b`), schemes that are not in `SCHEMES`, `..` in a remote key, or a NUL.
    """
    if "::" in url or "\0" in url:
        raise UserError(f"{url!r}: chained URLs and NUL are refused")
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Location(scheme="file", path=os.path.abspath(url))  # noqa: PTH100 -- Path.resolve would follow symbolic links
    if scheme not in SCHEMES:
        raise UserError(f"{url}: scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return Location(scheme="file", path=os.path.abspath("/" + rest.lstrip("/")))  # noqa: PTH100
    parts = rest.rstrip("/").split("/")
    if not parts[0] or any(part in {"", ".", ".."} for part in parts):
        raise UserError(f"{url}: a bucket and a key without empty, '.' or '..' parts are needed")
    return Location(scheme=scheme, path="/".join(parts))


def leads_out(path: str) -> bool:
    """Whether a path relative to a folder leads out of it."""
    return path.startswith("/") or ".." in path.split("/")


def joined(url: str, name: str) -> str:
    """Return `name` under the folder `url`."""
    return f"{url.rstrip('/')}/{name}"


def split(url: str) -> tuple[str, str]:
    """Return (folder URL, name) of a file."""
    folder, _, name = parse_url(url).url.rpartition("/")
    return folder or "/", name


class Store(Protocol):
    """One folder, local or remote. Paths are relative to it."""

    url: str
    is_local: bool

    def put_new(self, path: str, data: bytes, content_type: str = ...) -> bool:
        """Write `data` unless `path` exists; return whether this call made it."""

    def put(self, path: str, data: bytes, content_type: str = ...) -> None:
        """Write `data`, replacing what is there, never showing half of it."""

    def read(self, path: str) -> bytes:
        """Return the content. Raises FileNotFoundError."""

    def stat(self, path: str) -> Entry:
        """Return size and tag of one file. Raises FileNotFoundError."""

    def list(self, folder: str = ..., *, deep: bool = ...) -> list[Entry]:
        """Return every file in `folder` (and below it, when deep), sorted by path; empty when there is none."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    def temporary(self) -> Sequence[Entry]:
        """Return the halves that killed writers left, sorted by path; `list` never shows them."""

    def open(self, path: str) -> BinaryIO:
        """Open for reading at random places. Raises FileNotFoundError."""


def open_store(url: str, storage: Mapping[str, Storage]) -> Store:
    """Return the store for a folder.

    Args:
        url: Local path or fsspec URL.
        storage: The job's options by URL prefix; the longest that fits wins.
    """
    location = parse_url(url)
    if location.is_local:
        return LocalStore(location.path)
    return ObjectStore(location, _options(location.url, storage))


def _options(url: str, storage: Mapping[str, Storage]) -> Storage:
    fitting = [prefix for prefix in storage if url.startswith(prefix) or url + "/" == prefix]
    return storage[max(fitting, key=len)] if fitting else Storage()


_TEMPORARY = ".tmp"


class LocalStore:
    """A folder on a local disk or a network file system with hard links."""

    is_local = True

    def __init__(self, root: str) -> None:
        self.url = root
        self._root = Path(root)
        self._made: set[Path] = set()

    def put_new(self, path: str, data: bytes, content_type: str = "") -> bool:
        """See `Store`. fsspec's local mode="create" is not exclusive: 4 processes, 300 keys gave 301 wins."""
        target = self._target(path)
        temporary = self._temporary(data)
        try:
            os.link(temporary, target)
            created = True
        except FileExistsError:
            # NFS may answer EEXIST to a link of ours whose reply was lost; then the temporary file has two names.
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
        found = self._file(path).stat()
        return Entry(path=path, size_bytes=found.st_size, etag="", modified_s=found.st_mtime)

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        """See `Store`. What lies in `.tmp/` is not listed."""
        if self._root.exists() and not self._root.is_dir():
            raise StoreRefused(f"{self.url}: is a file, not a folder")
        return _walk(self, folder, deep=deep)

    def temporary(self) -> Sequence[Entry]:
        """See `Store`."""
        return _walk(self, _TEMPORARY, deep=False)

    def delete(self, path: str) -> None:
        """See `Store`."""
        self._file(path).unlink(missing_ok=True)

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return self._file(path).open("rb")

    def _file(self, path: str) -> Path:
        """Return where a path lies; what a campaign's files name is not believed to be inside it."""
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


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ObjectStore:
    """A bucket prefix reached through fsspec."""

    is_local = False

    def __init__(self, location: Location, options: Storage) -> None:
        self.url = location.url
        self._scheme = location.scheme
        self._root = location.path
        self._fs = filesystem(location, options)

    def put_new(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> bool:
        """See `Store`. A reply that was lost looks like a lost race; the caller tells them apart by content.

        Raises:
            StoreRefused: When the store says that it has no conditional writes.
        """

        def attempt() -> bool:
            try:
                self._fs.pipe_file(self._full(path), data, mode="create", **self._headers(content_type))
            except Exception as error:
                code = error_code(error)
                if code in _EXISTS_CODES or isinstance(error, FileExistsError):
                    return False
                if code in _UNCONDITIONAL_CODES:
                    raise StoreRefused(f"{self.url}: {NO_PUT_IF_ABSENT} (it answers {code})") from error
                raise
            return True

        return self._retried(attempt, path)

    def put(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """See `Store`."""
        self._retried(lambda: self._fs.pipe_file(self._full(path), data, **self._headers(content_type)), path)

    def read(self, path: str) -> bytes:
        """See `Store`."""
        return cast("bytes", self._retried(lambda: self._fs.cat_file(self._full(path)), path))

    def stat(self, path: str) -> Entry:
        """See `Store`."""
        return _entry(self._retried(lambda: self._fs.info(self._full(path)), path), path)

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        """See `Store`."""
        top = self._full(folder) if folder else self._root
        depth = {} if deep else {"maxdepth": 1}
        found = self._retried(lambda: self._fs.find(top, detail=True, **depth), folder)
        cut = len(self._root) + 1
        return sorted((_entry(info, path[cut:]) for path, info in found.items()), key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        """See `Store`."""

        def attempt() -> None:
            try:
                self._fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

        self._retried(attempt, path)

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return cast("BinaryIO", self._retried(lambda: self._fs.open(self._full(path), "rb"), path))

    def temporary(self) -> Sequence[Entry]:
        """See `Store`. A write that broke off shows nowhere; a bucket's lifecycle rule ends parts of large ones."""
        return ()

    def _full(self, path: str) -> str:
        if leads_out(path):
            raise StoreRefused(f"{self.url}: the path {path!r} leads out of it")
        return f"{self._root}/{path}"

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"ContentType": content_type} if self._scheme == "s3" else {}

    def _retried(self, call: Callable[[], _T], path: str) -> _T:
        return retried(call, f"{self.url}/{path}")


def filesystem(location: Location, options: Storage) -> Any:
    """Return a new fsspec filesystem for a remote location; no caches, bounded waits.

    Raises:
        StoreRefused: When the scheme's package is not installed.
    """
    import fsspec

    if location.scheme != "s3":
        try:
            return fsspec.filesystem(location.scheme, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(location.scheme)
            raise StoreRefused(f"{location.url}: {location.scheme}:// needs the package {package}") from error
    client = {"region_name": options.region} if options.region else {}
    found = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        anon=bool(options.anon),
        profile=options.profile,
        endpoint_url=options.endpoint_url,
        client_kwargs=client,
        config_kwargs={
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
        },
    )
    found.retries = _S3FS_TRIES
    return found


def _entry(info: Mapping[str, Any], path: str) -> Entry:
    return Entry(path=path, size_bytes=int(info.get("size") or 0), etag=_etag(info), modified_s=_modified_s(info))


def _modified_s(info: Mapping[str, Any]) -> float:
    """Return when an object was last written: s3fs and adlfs give a datetime, gcsfs its text."""
    found = info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("updated")
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found.timestamp() if isinstance(found, datetime) else math.inf


def _etag(info: Mapping[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("content_md5")
    return str(tag).strip('"') if tag else f"{info.get('size')}-{info.get('mtime') or info.get('LastModified')}"

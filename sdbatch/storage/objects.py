"""A bucket prefix, reached through fsspec, as a store."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final, Self, TypeVar, cast

from sdbatch.errors import StoreRefused
from sdbatch.extras import lacking
from sdbatch.job import Storage, storage_faults
from sdbatch.storage.locations import EXTRAS, PACKAGES, Location, leads_out
from sdbatch.storage.refusals import error_code, has_reason, message_of, refusal
from sdbatch.storage.retries import Line
from sdbatch.storage.store import JSON_BYTES_MAX, NO_PUT_IF_ABSENT, Entry, read_bytes_max, read_in_turn

CONNECT_TIMEOUT_S = 5

READ_TIMEOUT_S = 30

"""Longest silence of a connection; a transfer may take longer."""

_S3FS_TRIES = 3

"""Tries that s3fs makes itself, for a request in the middle of an opened file. botocore makes one: tries of several
layers would multiply."""

_EXISTS_CODES = {"PreconditionFailed", "412"}

_UNCONDITIONAL_CODES = {"NotImplemented", "501"}

_DOUBTFUL_CODES = {"400", "BadRequest", "InvalidArgument", "InvalidHeader", "InvalidRequest", "MethodNotAllowed", "405"}

"""Answers to a conditional write that mean the condition, where no row of the table of refusals says otherwise."""

_NO_RANGE_CODES = {"InvalidRange", "416"}

SMALL_PARQUET_BYTES: Final = 8 << 20

"""Parquet of fewer bytes is read by one request."""

_T = TypeVar("_T")


class ObjectStore:
    """A bucket prefix reached through fsspec."""

    is_local = False

    def __init__(self, location: Location, options: Storage, prefix: str = "", *, is_reached: bool = False) -> None:
        self.url = location.url
        self._line = Line(prefix or _bucket_url(location), is_reached=is_reached)
        self._scheme = location.scheme
        self._root = location.path
        self._fs = filesystem(location, options)

    def put_new(
        self, path: str, data: bytes, content_type: str = "application/octet-stream", *, syncs: bool = True
    ) -> bool:
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
                if code in _UNCONDITIONAL_CODES or (code in _DOUBTFUL_CODES and not has_reason(error)):
                    said = f"it answers {code}: {message_of(error)}"
                    raise StoreRefused(f"{self.url}: {NO_PUT_IF_ABSENT} ({said})") from error
                raise
            return True

        return self._retried(attempt, path)

    def sync(self, folder: str) -> None:
        """See `Store`: what was answered is kept."""

    def put(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """See `Store`."""
        self._retried(lambda: self._fs.pipe_file(self._full(path), data, **self._headers(content_type)), path)

    def read(self, path: str) -> bytes:
        """See `Store`."""
        most = read_bytes_max(path)
        if most <= JSON_BYTES_MAX:
            data = self.read_range(path, 0, most + 1)
            if len(data) > most:
                raise StoreRefused(f"{self.url}/{path}: has over {most} bytes, and no more is read of such a file")
            return data
        options = self._in_one_request()
        if path.endswith(".parquet"):
            start = self.read_range(path, 0, SMALL_PARQUET_BYTES)
            if len(start) < SMALL_PARQUET_BYTES:
                return start
            options = {}  # a large snapshot is read in parts, side by side, once its length is known
        return cast("bytes", self._retried(lambda: self._fs.cat_file(self._full(path), **options), path))

    def read_each(self, paths: Sequence[str]) -> Iterator[bytes | None]:
        """See `Store`."""
        return read_in_turn(self.read, paths)

    def stat(self, path: str) -> Entry:
        """See `Store`."""
        return _entry(self._retried(lambda: self._fs.info(self._full(path)), path), path)

    def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
        """See `Store`."""
        top = self._full(folder) if folder else self._root

        def attempt() -> Iterable[Mapping[str, Any]]:
            if deep:
                return cast("Mapping[str, Any]", self._fs.find(top, detail=True)).values()
            try:  # `find` with a depth asks twice as much about a folder that is not there
                return [info for info in self._fs.ls(top, detail=True) if info["type"] == "file"]
            except FileNotFoundError:
                return []

        cut = len(self._root) + 1
        entries = (_entry(info, info["name"][cut:]) for info in self._retried(attempt, folder))
        return sorted(entries, key=lambda entry: entry.path)

    def folders(self, folder: str) -> Sequence[str]:
        """See `Store`. A listing with a delimiter: what lies below a folder is not counted through."""

        def attempt() -> Sequence[str]:
            try:
                found = self._fs.ls(self._full(folder), detail=True)
            except FileNotFoundError:
                return []
            return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

        return self._retried(attempt, folder)

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
        handle = self._retried(lambda: self._fs.open(self._full(path), "rb"), path)
        return cast("BinaryIO", _OpenedObject(handle, lambda call: self._retried(call, path)))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """See `Store`."""

        def attempt() -> bytes:
            try:
                return cast("bytes", self._fs.cat_file(self._full(path), start=start, end=stop))
            except Exception as error:
                if error_code(error) in _NO_RANGE_CODES and not start:
                    return b""  # of an empty object not even the first byte is there
                raise

        return self._retried(attempt, path)

    def temporary(self) -> Sequence[Entry]:
        """See `Store`. A write that broke off is listed nowhere; a bucket's lifecycle rule removes its parts."""
        return ()

    def _full(self, path: str) -> str:
        if leads_out(path):
            raise StoreRefused(f"{self.url}: the path {path!r} leads out of it")
        return f"{self._root}/{path}"

    def _in_one_request(self) -> dict[str, int]:
        """Return the option by which newer s3fs does not ask for a length first, to read in parts."""
        if self._scheme != "s3" or "max_concurrency" not in inspect.signature(self._fs._cat_file).parameters:  # noqa: SLF001
            return {}
        return {"max_concurrency": 1}

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"ContentType": content_type} if self._scheme == "s3" else {}

    def _retried(self, call: Callable[[], _T], path: str) -> _T:
        return self._line.call(call, f"{self.url}/{path}")


def _bucket_url(location: Location) -> str:
    return f"{location.scheme}://{location.path.partition('/')[0]}/"


class _OpenedObject:
    """An opened object whose reads are tried again, and refused in one line, as every call to the store is."""

    def __init__(self, handle: Any, retried: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._handle = handle
        self._retried = retried

    def read(self, size: int = -1) -> bytes:
        """Read on; a read that fails leaves the place where it was."""
        return self._retried(lambda: self._handle.read(size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def filesystem(location: Location, options: Storage) -> Any:
    """Return a new fsspec filesystem for a remote location; no caches, bounded waits.

    Raises:
        StoreRefused: When the scheme's package is not installed, or when it does not take an option that is set.
    """
    import fsspec

    if faults := storage_faults(location.url, options):
        raise StoreRefused("; ".join(faults))
    package = PACKAGES[location.scheme]
    if missing := lacking(EXTRAS[package]):
        raise StoreRefused(f"{location.url}: {location.scheme}:// needs a package that is missing: {missing}")
    arguments = _ARGUMENTS[package](options)
    try:
        filesystem = fsspec.filesystem(location.scheme, skip_instance_cache=True, use_listings_cache=False, **arguments)
    except ImportError as error:
        raise StoreRefused(f"{location.url}: {location.scheme}:// cannot load {package}: {error}") from error
    except Exception as error:
        if known := refusal(error, location.url, _bucket_url(location)):
            raise known from error
        raise
    if package == "s3fs":
        filesystem.retries = _S3FS_TRIES
    return filesystem


def _s3fs_arguments(options: Storage) -> dict[str, Any]:
    return {
        "anon": bool(options.anon),
        "profile": options.profile,
        "endpoint_url": options.endpoint_url,
        "client_kwargs": {"region_name": options.region} if options.region else {},
        "config_kwargs": {
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            **_checksums(options),
            **({"s3": {"addressing_style": options.addressing_style}} if options.addressing_style else {}),
        },
    }


def _checksums(options: Storage) -> dict[str, str]:
    """Return when checksums are sent and compared.

    botocore sends them with every write by default. Many other stores than Amazon's refuse that, so for an address of
    one's own they go only where they must; assets have sha256 of our own. What the job or the environment says wins.
    """
    is_own_address = bool(options.endpoint_url or _ENDPOINTS & os.environ.keys() or _profile_endpoint(options.profile))
    found = {}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        chosen = getattr(options, name)
        if chosen or (is_own_address and f"AWS_{name.upper()}" not in os.environ):
            found[name] = chosen or "when_required"
    return found


_ENDPOINTS: Final = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"}


def _profile_endpoint(profile: str | None) -> str | None:
    """Return the address that a profile names for S3; None for none, or where there is no such profile."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.Session(profile=profile)
        config = session.get_scoped_config()
    except BotoCoreError:  # the first call says so
        return None
    services = session.full_config.get("services", {}).get(config.get("services", ""), {})
    return config.get("endpoint_url") or (services.get("s3") or {}).get("endpoint_url")


def _gcsfs_arguments(options: Storage) -> dict[str, Any]:
    """Return gcsfs' arguments; `token="anon"` is its word for requests without credentials."""
    anonymous = {"token": "anon"} if options.anon else {}
    return anonymous | ({"endpoint_url": options.endpoint_url} if options.endpoint_url else {})


def _adlfs_arguments(options: Storage) -> dict[str, Any]:
    """Return adlfs' arguments; where `anon` is not set, adlfs looks for credentials itself."""
    return {} if options.anon is None else {"anon": options.anon}


_ARGUMENTS: Final[Mapping[str, Callable[[Storage], dict[str, Any]]]] = {
    "s3fs": _s3fs_arguments,
    "gcsfs": _gcsfs_arguments,
    "adlfs": _adlfs_arguments,
}

"""Names of a job's options in each package."""


def _entry(info: Mapping[str, Any], path: str) -> Entry:
    return Entry(path=path, size_bytes=int(info.get("size") or 0), etag=_etag(info), modified_s=_modified_s(info))


def _modified_s(info: Mapping[str, Any]) -> float:
    """Return when an object was last written: s3fs and adlfs give a datetime, gcsfs its text."""
    written = info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("updated")
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    return written.timestamp() if isinstance(written, datetime) else math.inf


def _etag(info: Mapping[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("content_md5")
    return str(tag).strip('"') if tag else f"{info.get('size')}-{info.get('mtime') or info.get('LastModified')}"

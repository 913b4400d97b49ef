"""Reads sources and digests their content.

    URLs --> digest_sources() --> digest by URL (at plan time)        read_source() --> bytes and digest (in the worker)

The digest of a local file is its sha256; in object stores the ETag stands for the content. A file is opened beneath the
places of `sources.allow`, at plan time and in the worker: a link that is turned between the two reads nothing outside.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping

from sdbatch.errors import SourceMissing, SourceTooLarge
from sdbatch.job import Storage
from sdbatch.storage import AllowList, Entry, Store, joined, open_store, parse_url, split
from sdbatch.storage.digests import sha256_files

LIST_FROM = 8
"""Number of sources in one remote folder from which on one listing is cheaper than a request for each."""


def digest_sources(urls: Iterable[str], storage: Mapping[str, Storage], allow: AllowList) -> dict[str, str]:
    """Return the digest of each source by URL: `sha256:...` of a local file, `etag:...` in a store, or `missing`."""
    local: list[str] = []
    remote: dict[str, list[str]] = {}
    for url in set(urls):
        if parse_url(url).is_local:
            local.append(url)
        else:
            remote.setdefault(split(url)[0], []).append(url)
    digests = sha256_files(local, allow.open)
    for folder, members in remote.items():
        store = open_store(folder, storage)
        if len(members) >= LIST_FROM:
            tags = {joined(folder, entry.path): entry.etag for entry in store.list(deep=False)}
        else:
            entries = {url: _stat_or_none(store, split(url)[1]) for url in members}
            tags = {url: entry.etag for url, entry in entries.items() if entry}
        digests.update({url: f"etag:{tags[url]}" if url in tags else "missing" for url in members})
    return digests


def _stat_or_none(store: Store, path: str) -> Entry | None:
    try:
        return store.stat(path)
    except FileNotFoundError:
        return None


def read_source(url: str, storage: Mapping[str, Storage], bytes_max: int, allow: AllowList) -> tuple[bytes, str]:
    """Read a source and digest it.

    Args:
        url: The source.
        storage: The job's options by URL prefix.
        bytes_max: Most bytes it may have.
        allow: The places that it may come from.

    Returns:
        Its bytes, and its digest in the form that the plan used.

    Raises:
        SourceMissing: When it is not there, is not a regular file, or is outside of the places it may come from.
        SourceTooLarge: When it is longer than `bytes_max`.
    """
    if problem := allow.problem(url):
        raise SourceMissing(f"{url}: {problem}")
    try:
        if parse_url(url).is_local:
            return _read_local(url, bytes_max, allow)
        return _read_remote(url, storage, bytes_max)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceMissing(f"{url}: there is no such file") from error


def _read_local(url: str, bytes_max: int, allow: AllowList) -> tuple[bytes, str]:
    with allow.open(url) as file:
        data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            size_bytes = max(os.fstat(file.fileno()).st_size, len(data))
            raise SourceTooLarge(f"{url}: {size_bytes} bytes are over {bytes_max}")
    return data, f"sha256:{hashlib.sha256(data).hexdigest()}"


def _read_remote(url: str, storage: Mapping[str, Storage], bytes_max: int) -> tuple[bytes, str]:
    folder, name = split(url)
    store = open_store(folder, storage)
    entry = store.stat(name)
    if entry.size_bytes > bytes_max:
        raise SourceTooLarge(f"{url}: {entry.size_bytes} bytes are over {bytes_max}")
    data = store.read(name)
    return data, f"etag:{entry.etag}" if entry.etag else f"sha256:{hashlib.sha256(data).hexdigest()}"

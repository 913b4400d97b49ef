"""Sources, known by their content.

    URLs --> digest_sources() --> digest by URL (at plan time)        read_source() --> bytes and digest (in the worker)

Local digests are sha256; in object stores the ETag stands for the content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from stat import S_ISREG

from sdbatch.errors import SourceMissing, SourceTooLarge
from sdbatch.job import Storage
from sdbatch.storage import Entry, Store, joined, open_store, parse_url, split
from sdbatch.storage.digests import sha256_files

LIST_FROM = 8

"""Sources in one remote folder from which one listing is cheaper than asking for each."""


def digest_sources(urls: Iterable[str], storage: Mapping[str, Storage]) -> dict[str, str]:
    """Return the content digest of each source: sha256 when local, ETag when remote, `missing` when not there."""
    local: list[str] = []
    remote: dict[str, list[str]] = {}
    for url in set(urls):
        if parse_url(url).is_local:
            local.append(url)
        else:
            remote.setdefault(split(url)[0], []).append(url)
    digests = sha256_files(local)
    for folder, members in remote.items():
        store = open_store(folder, storage)
        if len(members) >= LIST_FROM:
            tags = {joined(folder, entry.path): entry.etag for entry in store.list(deep=False)}
        else:
            found = {url: _stat_or_none(store, split(url)[1]) for url in members}
            tags = {url: entry.etag for url, entry in found.items() if entry}
        digests.update({url: f"etag:{tags[url]}" if url in tags else "missing" for url in members})
    return digests


def _stat_or_none(store: Store, path: str) -> Entry | None:
    try:
        return store.stat(path)
    except FileNotFoundError:
        return None


def read_source(url: str, storage: Mapping[str, Storage], bytes_max: int) -> tuple[bytes, str]:
    """Read a source and say what was read.

    Returns:
        The bytes and the digest in the form the plan used.

    Raises:
        SourceMissing: When it is not there.
        SourceTooLarge: When it is longer than `bytes_max`.
    """
    folder, name = split(url)
    store = open_store(folder, storage)
    try:
        if store.is_local and not S_ISREG(os.stat(joined(folder, name)).st_mode):  # noqa: PTH116 -- as above
            raise SourceMissing(f"{url}: is no file")
        entry = store.stat(name)
        if entry.size_bytes > bytes_max:
            raise SourceTooLarge(f"{url}: {entry.size_bytes} bytes is over {bytes_max}")
        data = store.read(name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceMissing(f"{url}: not there") from error
    return data, f"etag:{entry.etag}" if entry.etag else f"sha256:{hashlib.sha256(data).hexdigest()}"

"""The store for a URL, with the job's options for it."""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.job import Storage
from sdbatch.storage.local import LocalStore
from sdbatch.storage.locations import parse_url
from sdbatch.storage.objects import ObjectStore
from sdbatch.storage.store import Store


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

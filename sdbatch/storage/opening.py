"""The store for a URL, with the job's options for it."""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.job import Storage, options_for
from sdbatch.storage.local import LocalStore
from sdbatch.storage.locations import parse_url
from sdbatch.storage.objects import ObjectStore
from sdbatch.storage.store import Store


def open_store(url: str, storage: Mapping[str, Storage]) -> Store:
    """Return the store for a folder.

    Args:
        url: Local path or fsspec URL.
        storage: The job's options by URL prefix; see `sdbatch.job.reach`.

    Raises:
        StoreRefused: When the scheme's package is not installed, or when it does not take an option that is set.
    """
    location = parse_url(url)
    if location.is_local:
        return LocalStore(location.path)
    return ObjectStore(location, options_for(location.url, storage))

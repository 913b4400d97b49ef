"""The store for a URL, with the job's options for it.

a campaign                  --> open_campaign() --> no link in it is followed
models, sources, a manifest --> open_store()    --> links that a person laid are followed when they are read
"""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.job import Storage, options_for, prefix_for
from sdbatch.storage.local import LinkedStore, LocalStore
from sdbatch.storage.locations import parse_url
from sdbatch.storage.objects import ObjectStore
from sdbatch.storage.store import Store


def open_store(url: str, storage: Mapping[str, Storage]) -> Store:
    """Return the store for a folder that is read. See `open_campaign` for one that may come from a stranger.

    Args:
        url: Local path or fsspec URL.
        storage: The job's options by URL prefix; see `sdbatch.job.reach`.

    Raises:
        StoreRefused: When the scheme's package is not installed, or when it does not take an option that is set.
    """
    location = parse_url(url)
    if location.is_local:
        return LinkedStore(location.path)
    return ObjectStore(location, options_for(location.url, storage), prefix_for(location.url, storage))


def open_campaign(url: str, storage: Mapping[str, Storage], *, is_reached: bool = False) -> Store:
    """Return the store for a campaign: on a file system no link inside it is followed. See `open_store`.

    Args:
        url: As there.
        storage: As there.
        is_reached: Whether the store is known to be there, so that one where nothing listens is waited for.
    """
    location = parse_url(url)
    if location.is_local:
        return LocalStore(location.path)
    options, prefix = options_for(location.url, storage), prefix_for(location.url, storage)
    return ObjectStore(location, options, prefix, is_reached=is_reached)

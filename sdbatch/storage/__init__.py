"""The one place that touches files and buckets.

    URL --> parse_url() --> LocalStore | ObjectStore   (put_new = put-if-absent, the primitive a campaign stands on)

Build a store inside the process that uses it; an fsspec filesystem does not survive a fork.
"""

from __future__ import annotations

from sdbatch.storage.allowed import AllowList
from sdbatch.storage.local import LinkedStore, LocalStore
from sdbatch.storage.locations import SCHEMES, Location, joined, leads_out, parse_url, split
from sdbatch.storage.objects import ObjectStore, filesystem
from sdbatch.storage.opening import open_campaign, open_store
from sdbatch.storage.store import NO_PUT_IF_ABSENT, Entry, Store

__all__ = [
    "NO_PUT_IF_ABSENT",
    "SCHEMES",
    "AllowList",
    "Entry",
    "LinkedStore",
    "LocalStore",
    "Location",
    "ObjectStore",
    "Store",
    "filesystem",
    "joined",
    "leads_out",
    "open_campaign",
    "open_store",
    "parse_url",
    "split",
]

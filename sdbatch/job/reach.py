"""Access to buckets: the job's `storage`, by URL prefix.

A prefix ends at a `/` of the URL, so `s3://assets` does not serve `s3://assets-private`; the longest that fits wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict

STORAGE_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("profile", "endpoint_url", "region", "anon"),
    "gs": ("endpoint_url", "anon"),
    "gcs": ("endpoint_url", "anon"),
    "az": ("anon",),
    "abfs": ("anon",),
    "abfss": ("anon",),
}

"""Options that the package of each scheme takes: s3fs, gcsfs and adlfs."""


class Storage(BaseModel):
    """Access to one URL prefix. It never holds a secret: those come from the environment or an identity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    profile: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    anon: bool | None = None


def storage_faults(prefix: str, options: Storage) -> list[str]:
    """Return what is wrong with the options of one prefix: its scheme, and every option it does not take."""
    scheme, separator, _ = prefix.partition("://")
    if not separator or scheme not in STORAGE_OPTIONS:
        return [f"{prefix!r} is not a prefix of an object store; those begin with {', '.join(STORAGE_OPTIONS)} and ://"]
    taken = STORAGE_OPTIONS[scheme]
    return [
        f"{prefix}: {scheme}:// takes no {name}; it takes {', '.join(taken)}"
        for name in options.model_dump(exclude_none=True)
        if name not in taken
    ]


def options_for(url: str, storage: Mapping[str, Storage]) -> Storage:
    """Return the options of the longest prefix that a URL lies under; none where there is no such prefix."""
    fitting = [prefix for prefix in storage if f"{url}/".startswith(f"{prefix.rstrip('/')}/")]
    return storage[max(fitting, key=len)] if fitting else Storage()

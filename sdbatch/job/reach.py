"""Where a job writes, and its access to buckets: `storage`, by URL prefix.

A prefix ends at a `/` of the URL, so `s3://assets` does not serve `s3://assets-private`; the longest that fits wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sdbatch.errors import JobError

STORAGE_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": (
        "profile",
        "endpoint_url",
        "region",
        "anon",
        "addressing_style",
        "request_checksum_calculation",
        "response_checksum_validation",
    ),
    "gs": ("endpoint_url", "anon"),
    "gcs": ("endpoint_url", "anon"),
    "az": ("anon",),
    "abfs": ("anon",),
    "abfss": ("anon",),
}

"""Options that the package of each scheme takes: s3fs, gcsfs and adlfs."""


_UNFILLED: Final = re.compile(r"^~[\w.-]*(?=/|$)|\$[A-Za-z_]\w*|\$?\{[^{}]*\}|%[A-Za-z_]\w*%")
"""What shells and templates put values in place of: a home, a variable, a placeholder."""
_ONE_SLASH: Final = re.compile(rf"(?:file|https?|{'|'.join(STORAGE_OPTIONS)}):/?(?!/)")

Checksums = Literal["when_supported", "when_required"]


class Storage(BaseModel):
    """Access to one URL prefix. It never holds a secret: those come from the environment or an identity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    profile: str | None = Field(default=None, description="Name of a profile in the files of the AWS command line.")
    endpoint_url: str | None = Field(
        default=None, description="Address of a store that is not the scheme's own, such as http://minio:9000."
    )
    region: str | None = Field(default=None, description="Region of the bucket.")
    anon: bool | None = Field(default=None, description="Whether requests go without credentials, to public buckets.")
    addressing_style: Literal["auto", "path", "virtual"] | None = Field(
        default=None, description="Whether the bucket stands in the path of a request or in its host name."
    )
    request_checksum_calculation: Checksums | None = Field(
        default=None, description="Checksums of what is written; where endpoint_url is one's own, when_required."
    )
    response_checksum_validation: Checksums | None = Field(
        default=None, description="Checksums of what is read; where endpoint_url is one's own, when_required."
    )


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


def refuse_unfilled(target: Any, place: str) -> None:
    """Refuse a place to write to that would be made as a folder of that very name, `~` or `s3:`, and is not meant so.

    Raises:
        JobError: Naming what nothing fills in.
    """
    if not isinstance(target, str):
        return
    if found := _UNFILLED.search(target):
        hint = "write the folder out, or ./~ for one of that name" if found[0][0] == "~" else "write it out"
        raise JobError(f"{place}: {target!r}: nothing is filled in for {found[0]} here; {hint}")
    if found := _ONE_SLASH.match(target):
        raise JobError(f"{place}: {target!r}: two slashes stand behind a scheme, as in s3://bucket/spring")


def options_for(url: str, storage: Mapping[str, Storage]) -> Storage:
    """Return the options of the longest prefix that a URL lies under; none where there is no such prefix."""
    prefix = prefix_for(url, storage)
    return storage[prefix] if prefix else Storage()


def prefix_for(url: str, storage: Mapping[str, Storage]) -> str:
    """Return the longest prefix that a URL lies under; "" where there is none."""
    fitting = [prefix for prefix in storage if f"{url}/".startswith(f"{prefix.rstrip('/')}/")]
    return max(fitting, key=len, default="")

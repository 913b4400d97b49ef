"""Addresses that are told when a run ends: `on_end` of a job."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

ADDRESSES_MAX: Final = 10
FROM_ENVIRONMENT: Final = "env:"
"""Before the name of a variable that holds the address, where the address is a secret."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CHARS_MAX: Final = 2048


def address_problem(address: str) -> str | None:
    """Return what is wrong with an address, None when nothing is; the address itself is not repeated."""
    if len(address) > _CHARS_MAX:
        return f"has over {_CHARS_MAX} characters"
    if any(letter.isspace() or not letter.isprintable() for letter in address):
        return "has blanks or control characters"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in {"http", "https"} or not host:
        return "is no http:// or https:// address"
    if parts.username is not None or parts.password is not None:
        return "has a user or a password before its host; name a variable of the environment instead, as env:NAME"
    return None


def host_of(address: str) -> str:
    """Return the host of an address, which may be shown; what follows it may be a secret."""
    return urlsplit(address).netloc.rpartition("@")[2]


def _checked(entry: str) -> str:
    if entry.startswith(FROM_ENVIRONMENT):
        if not _VARIABLE.fullmatch(entry.removeprefix(FROM_ENVIRONMENT)):
            raise ValueError("an entry is an address, or env:NAME, a variable that holds one")
    elif problem := address_problem(entry):
        raise ValueError(f"an entry {problem}")
    return entry


OnEnd = Annotated[list[Annotated[str, AfterValidator(_checked)]], Field(max_length=ADDRESSES_MAX)]
"""Type of the key; messages about it never hold an address."""

"""A row's source columns as URLs by role, and as the sources that a request gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdbatch.columns import SOURCE_ROLES
from sdbatch.families import Given
from sdbatch.types import Source

OTHER_ROLES = SOURCE_ROLES[1:]
"""Roles of one source each; `images` may have several."""


def listed(value: Any) -> list[str]:
    """Return a source column's URLs: null and "" are none, a plain string is one."""
    if not value:
        return []
    return [value] if isinstance(value, str) else [url for url in value if url]


def given_of_urls(urls: tuple[Any, ...]) -> Given:
    """Return what a row gives by the values of its source columns, in the order of `SOURCE_ROLES`."""
    images, *others = urls
    return Given(len(listed(images)), frozenset(role for role, url in zip(OTHER_ROLES, others, strict=True) if url))


def digests_by_role(sources: Iterable[Source]) -> dict[str, Any]:
    """Return the content digests by role: a list of images, one of anything else."""
    digests: dict[str, Any] = {}
    for source in sources:
        if source.role == "images":
            digests.setdefault("images", []).append(source.digest)
        else:
            digests[source.role] = source.digest
    return digests

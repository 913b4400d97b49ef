"""A row's source columns as URLs by role, and as the sources that a request gives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sdbatch.columns import LISTED_ROLES, SOURCE_ROLES
from sdbatch.families import Given
from sdbatch.types import Source

OTHER_ROLES = SOURCE_ROLES[1:]
"""Roles beside `images`."""

ASSET_SCHEME: Final = "asset:"
_ASSET = re.compile(r"asset:([A-Za-z0-9][A-Za-z0-9._-]{0,127})/(0|[1-9][0-9]{0,3})")


class AssetName(NamedTuple):
    """An output of the campaign itself, named as a source: `asset:<id>/<n>`.

    Attributes:
        id: Id of its request.
        n: Its number.
    """

    id: str
    n: int

    def __str__(self) -> str:
        return f"{ASSET_SCHEME}{self.id}/{self.n}"


def asset_name(url: str) -> AssetName | None:
    """Return the output that a source names; None where it names a file."""
    found = _ASSET.fullmatch(url) if url.startswith(ASSET_SCHEME) else None
    return AssetName(found[1], int(found[2])) if found else None


def asset_problem(url: str) -> str | None:
    """Return what is wrong with a source that begins with `asset:`; None when nothing is."""
    if asset_name(url):
        return None
    return "is not of the form asset:<id>/<n>, as in asset:hero/0: the id of a row, and the number of its output"


def listed(value: Any) -> list[str]:
    """Return a source column's URLs: null and "" are none, a plain string is one."""
    if not value:
        return []
    return [value] if isinstance(value, str) else [url for url in value if url]


def given_of_urls(urls: tuple[Any, ...]) -> Given:
    """Return what a row gives by the values of its source columns, in the order of `SOURCE_ROLES`."""
    return _given(tuple(len(listed(value)) for value in urls))


@lru_cache(4096)
def _given(counts: tuple[int, ...]) -> Given:
    """Return what a row gives by the number of its sources in each role."""
    given = dict(zip(SOURCE_ROLES, counts, strict=True))
    return Given(
        given["images"],
        frozenset(role for role in OTHER_ROLES if given[role]),
        num_controls=given["control_image"],
        num_references=given["ip_adapter_images"],
    )


def digests_by_role(sources: Iterable[Source]) -> dict[str, Any]:
    """Return the content digests by role: a list where there may be several.

    One control picture stands there as itself: a row that names it by a list of one has the key that it always had.
    """
    digests: dict[str, Any] = {}
    for source in sources:
        if source.role in LISTED_ROLES:
            digests.setdefault(source.role, []).append(source.digest)
        else:
            digests[source.role] = source.digest
    if len(digests.get("control_image", ())) == 1:
        (digests["control_image"],) = digests["control_image"]
    return digests

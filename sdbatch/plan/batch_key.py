"""Which rows may share a pipeline call: those of one batch key.

settings of a group --> batch_key()      + sources, negative prompt of each row --> row_batch_keys()
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from sdbatch.canonical import canonical
from sdbatch.families import Route
from sdbatch.plan.sources import digests_by_role
from sdbatch.types import Source


def batch_key(of: str, together: Mapping[str, Any]) -> str:
    """Return a digest of a model or a wider batch key, and of what the rows of a call have in common."""
    return hashlib.sha256(f"{of} {canonical(together)}".encode()).hexdigest()[:16]


def row_batch_keys(
    group_key: str, route: Route, negative_prompts: Sequence[str], sources: Sequence[tuple[Source, ...]]
) -> list[str]:
    """Return the batch key of each row: its group's, narrowed by what of the row itself a call must have in common."""
    shares_sources = route.rows == "shared"
    if not shares_sources and not route.empty_negative_differs:
        return [group_key] * len(sources)
    narrowed = cache(partial(_narrowed, group_key))
    return [
        narrowed(of_row if shares_sources else (), lacks_negative=route.empty_negative_differs and not negative_prompt)
        for negative_prompt, of_row in zip(negative_prompts, sources, strict=True)
    ]


def _narrowed(group_key: str, sources: tuple[Source, ...], *, lacks_negative: bool) -> str:
    if sources:
        group_key = batch_key(group_key, digests_by_role(sources))
    if lacks_negative:
        group_key = batch_key(group_key, {"negative_prompt": None})
    return group_key

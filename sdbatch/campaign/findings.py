"""One thing that does not agree, as `verify` names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not agree.

    Attributes:
        kind: `missing`, `damaged` (other bytes than committed, or a file that stands in an asset's way),
            `withdrawn` (taken down, and still there), `metadata`
            (rows and commits differ), `commit`, `snapshot`, `index`, `record` or `requests` (that file; `asset`
            is its path).
        asset: Its path; "" when no single file is meant.
        id: Id of the request.
        request_key: Key of the request.
        n: Output number; None when the request is meant as a whole.
        detail: The disagreement, in words.
    """

    kind: str
    asset: str
    id: str
    request_key: str
    n: int | None
    detail: str


def output_finding(kind: str, row: Mapping[str, Any], detail: str) -> Finding:
    """Return what is wrong with one output, or with a request as a whole."""
    return Finding(
        kind=kind,
        asset=row.get("asset") or "",
        id=row["id"],
        request_key=row["request_key"],
        n=row["n"],
        detail=detail,
    )


def file_finding(kind: str, path: str, detail: str) -> Finding:
    """Return what is wrong with a file that is none of the assets."""
    return Finding(kind=kind, asset=path, id="", request_key="", n=None, detail=detail)

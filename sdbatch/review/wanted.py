"""Which outputs are handed on, by what people said of them.

    effective rows with verdicts --> wanted_rows(rows, only) --> Wanted

What somebody rejected is never wanted. Where an output of a row is picked its siblings are not wanted; where two are,
nobody knows which, so none of the row is, and the row is listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

Only = Literal["all", "approved", "picked"]
"""`all`: whatever nobody rejected; `approved`: what is approved or picked; `picked`: what is picked."""
_ALLOWED: Final[Mapping[str, frozenset[str | None]]] = {
    "all": frozenset({None, "approved", "picked"}),
    "approved": frozenset({"approved", "picked"}),
    "picked": frozenset({"picked"}),
}
READ: Final = ("id", "request_key", "n", "status", "verdict")
"""Columns of the metadata that the choice is made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PickConflict:
    """A row of which more than one output is picked.

    Attributes:
        id: Its id.
        request_key: Its key.
        numbers: The picked outputs.
    """

    id: str
    request_key: str
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.numbers))
        return f"{self.id}: outputs {numbers} are all picked; one of a row can be, so none of it is taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The outputs that are wanted among some rows.

    Attributes:
        reasons: For each row why it is not wanted, as in `left_out`; "" for one that is, or that is no made output.
        conflicts: Rows of the manifest with more than one pick.
        left_out: Number of made outputs that are not wanted, by why: `rejected`, `not approved`, `not picked`,
            `another is picked` or `two picks`.
    """

    reasons: tuple[str, ...]
    conflicts: tuple[PickConflict, ...]
    left_out: Mapping[str, int]


def pick_conflicts(rows: pa.Table) -> tuple[PickConflict, ...]:
    """Return the rows of the manifest of which more than one output is picked, in order."""
    return tuple(
        PickConflict(id=request_id, request_key=key, numbers=numbers)
        for (request_id, key), numbers in _picks(rows).items()
        if len(numbers) > 1
    )


def wanted_rows(rows: pa.Table, only: Only) -> Wanted:
    """Say which made outputs among effective rows are wanted.

    Args:
        rows: All effective rows of the requests that are meant, with the columns `READ`: a choice among siblings needs
            every one of them.
        only: Which.
    """
    picks = _picks(rows)
    reasons = tuple(
        _why_not(verdict, len(picks.get((request_id, key), ())), only) if status == "ok" else ""
        for request_id, key, _, status, verdict in _values(rows)
    )
    left_out = Counter(filter(None, reasons))
    return Wanted(reasons=reasons, conflicts=pick_conflicts(rows), left_out=left_out)


def _why_not(verdict: str | None, num_picks: int, only: Only) -> str:
    """Return why a made output is not wanted; "" where it is."""
    if verdict == "rejected":
        return "rejected"
    if num_picks > 1:
        return "two picks"
    if num_picks == 1 and verdict != "picked":
        return "another is picked"
    return "" if verdict in _ALLOWED[only] else f"not {only}"


def _picks(rows: pa.Table) -> dict[tuple[str, str], tuple[int, ...]]:
    picks: dict[tuple[str, str], tuple[int, ...]] = {}
    for request_id, key, n, status, verdict in _values(rows):
        if status == "ok" and verdict == "picked":
            picks[request_id, key] = (*picks.get((request_id, key), ()), n)
    return picks


def _values(rows: pa.Table) -> zip[tuple[str, str, int, str, str | None]]:
    return zip(*(rows.column(name).to_pylist() for name in READ), strict=True)

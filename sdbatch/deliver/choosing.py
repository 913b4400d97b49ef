"""Which outputs of a campaign a delivery may take, by what people decided of them.

    rows with their verdicts + only: all | approved | picked --> left_out_of() --> why an output is not delivered

What somebody rejected never goes out. Where one output of a request is picked, its siblings do not go out either, and
two picks of one request are a conflict that a person has to settle. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

Only = Literal["all", "approved", "picked"]

REJECTED: Final = "rejected"
NOT_APPROVED: Final = "not approved"
NOT_PICKED: Final = "not picked"
SIBLING: Final = "sibling of a pick"
CONFLICT: Final = "two picks of one request"


def left_out_of(rows: Sequence[Mapping[str, Any]], only: Only) -> list[str | None]:
    """Return for each row why it is not delivered, None for one that is.

    Args:
        rows: Rows with `id`, `n`, and, where somebody decided, `verdict`: rejected, picked, approved or None.
        only: What the delivery takes.
    """
    picks = Counter(row["id"] for row in rows if row.get("verdict") == "picked")
    return [_reason(row.get("verdict"), picks[row["id"]], only) for row in rows]


def _reason(verdict: str | None, num_picks: int, only: Only) -> str | None:
    if verdict == "rejected":
        return REJECTED
    if verdict == "picked":
        return CONFLICT if num_picks > 1 else None
    if num_picks:
        return SIBLING
    if only == "picked":
        return NOT_PICKED
    return NOT_APPROVED if only == "approved" and verdict != "approved" else None


def conflicts(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each request of which several outputs are picked."""
    picks: dict[str, list[str]] = {}
    for row in rows:
        if row.get("verdict") == "picked":
            picks.setdefault(row["id"], []).append(str(row["n"]))
    return [f"{name}: outputs {', '.join(numbers)} are picked" for name, numbers in picks.items() if len(numbers) > 1]

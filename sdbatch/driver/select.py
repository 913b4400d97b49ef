"""Which rows a run makes, and why.

    resolved rows + what is committed + Selection --> sort_out() --> (reason, row, outputs to make)

Rows are never all in memory: they stream from the spool, once to be counted and once to be made.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sdbatch.commit.read import Done
from sdbatch.driver.scan import Spool
from sdbatch.errors import ROW_ERRORS, JobError
from sdbatch.types import Request, Source

_LEFT = frozenset({"reused", "failed", "unselected"})
Reason = Literal["new", "changed", "outputs", "retry", "reused", "failed", "unselected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows a run makes.

    Attributes:
        limit: At most so many requests, in manifest order; None for all.
        only: Only these ids; empty for all.
        retry_failed: None: failed requests whose class is retryable; "": every failed one; a class name: those.
    """

    limit: int | None = None
    only: frozenset[str] = frozenset()
    retry_failed: str | None = None


def sort_out(
    rows: Iterable[Mapping[str, Any]], done: Done, selection: Selection
) -> Iterator[tuple[Reason, Mapping[str, Any], tuple[int, ...]]]:
    """Yield (reason, row, outputs): why each row is made or left, and which of its outputs are to be made."""
    taken = 0
    for row in rows:
        key = (row["id"], row["request_key"])
        missing = done.missing(*key, row["num_outputs"])
        reason = _reason(row, key, missing, done, selection)
        if reason in _LEFT:
            yield reason, row, ()
        elif selection.limit is not None and taken >= selection.limit:
            yield "unselected", row, ()
        else:
            taken += 1
            yield reason, row, missing


def _reason(
    row: Mapping[str, Any], key: tuple[str, str], missing: tuple[int, ...], done: Done, selection: Selection
) -> Reason:
    if selection.only and row["id"] not in selection.only:
        return "unselected"
    if not missing:
        return "reused"
    failure = done.failed.get(key)
    if failure is not None:
        wanted = selection.retry_failed
        is_wanted = failure.retryable if wanted is None else wanted in {"", failure.error_type}
        return "retry" if is_wanted else "failed"
    if key in done.ok:
        return "outputs"
    return "changed" if row["id"] in done.keys else "new"


def request_of(row: Mapping[str, Any], outputs: tuple[int, ...]) -> Request:
    """Return the request for some outputs of a spooled row."""
    return Request(
        id=row["id"],
        request_key=row["request_key"],
        recipe=row["recipe"],
        outputs=outputs,
        sources=tuple(Source(**source) for source in row["sources"]),
        model=row["model"],
        batch_key=row["batch_key"],
        cost_tflop=row["cost_tflop"],
    )


def check_selection(spool: Spool, selection: Selection) -> None:
    """Raise JobError when a selection names an id or a class of failure that there is not."""
    if selection.retry_failed and selection.retry_failed not in ROW_ERRORS:
        near = difflib.get_close_matches(selection.retry_failed, ROW_ERRORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(ROW_ERRORS))}"
        raise JobError(f"--retry-failed {selection.retry_failed}: no such class of failure; {hint}")
    if selection.only:
        unknown = selection.only - {row["id"] for row in spool.rows(["id"])}
        if unknown:
            raise JobError(f"--only {min(unknown)}: the manifest has no such id")

"""Which rows a run makes, and why.

    resolved rows + what is committed + Selection --> classify() --> ClassifiedRows --> requests_of() --> Request

Rows are never all in memory: they stream from the resolved manifest, once to be counted and once to be made.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sdbatch.campaign.read import Done
from sdbatch.driver.scan import ResolvedManifest
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedRows:
    """Consecutive rows of the manifest, each with the reason why a run makes it or leaves it.

    Attributes:
        rows: Rows of the resolved manifest, with the columns that were read.
        reasons: For each row, why it is made or left.
        outputs: For each row, the outputs to make; empty for a row that is left.
    """

    rows: pa.Table
    reasons: Sequence[Reason]
    outputs: Sequence[tuple[int, ...]]

    def rows_for(self, reason: Reason) -> pa.Table:
        """Return the rows that are made or left for a reason."""
        return self.rows.filter(pa.array([other == reason for other in self.reasons], pa.bool_()))


def classify(parts: Iterable[pa.Table], done: Done, selection: Selection) -> Iterator[ClassifiedRows]:
    """Classify each row and list its outputs that are still to be made."""
    taken = 0
    for part in parts:
        ids, keys = (part.column(name).to_pylist() for name in ("id", "request_key"))
        missing = done.missing(ids, keys, part.column("num_outputs").to_pylist())
        reasons = list(_reasons(ids, keys, missing, done, selection))
        if selection.limit is not None:
            for place, reason in enumerate(reasons):
                taken += reason not in _LEFT
                if reason not in _LEFT and taken > selection.limit:
                    reasons[place] = "unselected"
        outputs = [() if reason in _LEFT else numbers for reason, numbers in zip(reasons, missing, strict=True)]
        yield ClassifiedRows(rows=part, reasons=reasons, outputs=outputs)


def _reasons(
    ids: Sequence[str], keys: Sequence[str], missing: Sequence[tuple[int, ...]], done: Done, selection: Selection
) -> Iterator[Reason]:
    only, retry = selection.only, selection.retry_failed
    for pair, outputs in zip(zip(ids, keys, strict=True), missing, strict=True):
        if only and pair[0] not in only:
            yield "unselected"
        elif not outputs:
            yield "reused"
        elif failure := done.failed.get(pair):
            is_wanted = failure.retryable if retry is None else retry in {"", failure.error_type}
            yield "retry" if is_wanted else "failed"
        elif pair in done.ok:
            yield "outputs"
        else:
            yield "changed" if pair[0] in done.keys else "new"


def requests_of(parts: Iterable[ClassifiedRows]) -> Iterator[Request]:
    """Yield a request for each row with outputs to make; the rows must have been read with all their columns."""
    for part in parts:
        if not any(part.outputs):
            continue
        rows = part.rows.filter(pa.array(map(bool, part.outputs), pa.bool_()))
        columns = {name: rows.column(name).to_pylist() for name in Request._fields if name in rows.column_names}
        # Few different texts: as one object each, they are pickled once a unit and not once a row.
        columns |= {name: list(map(sys.intern, columns[name])) for name in ("model", "batch_key")}
        columns["sources"] = [tuple([Source(**source) for source in sources]) for sources in columns["sources"]]
        columns["outputs"] = list(filter(None, part.outputs))
        columns |= {"attempt": [0] * rows.num_rows, "takers": [()] * rows.num_rows, "origins": [()] * rows.num_rows}
        yield from map(Request._make, zip(*(columns[name] for name in Request._fields), strict=True))


def check_selection(manifest: ResolvedManifest, selection: Selection) -> None:
    """Raise JobError when a selection names an id that the manifest lacks, or an unknown class of failure."""
    if selection.retry_failed and selection.retry_failed not in ROW_ERRORS:
        near = difflib.get_close_matches(selection.retry_failed, ROW_ERRORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(ROW_ERRORS))}"
        raise JobError(f"--retry-failed {selection.retry_failed}: no such class of failure; {hint}")
    if selection.only:
        unknown = selection.only.difference(*(part.column("id").to_pylist() for part in manifest.parts(["id"])))
        if unknown:
            raise JobError(f"--only {min(unknown)}: the manifest has no such id")

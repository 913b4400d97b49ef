"""Which rows a run makes, and why.

    resolved rows + Done + Selection --> classify() --> ClassifiedRows --> requests_of() --> Request

Rows are never all in memory: they stream from the resolved manifest, once to be counted and once to be made.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.campaign.done import Done, Standing
from sdbatch.campaign.tombstones import Tombstones
from sdbatch.driver.one_run.rerolls import Choice, Rules, choose
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.parts import part_digests
from sdbatch.driver.rows.scan import IS_PICKED, ResolvedManifest
from sdbatch.driver.rows.shared_keys import Sharing
from sdbatch.errors import ROW_ERRORS, JobError
from sdbatch.hints import did_you_mean
from sdbatch.types import Request, Source

Reason = Literal[
    "new", "changed", "outputs", "retry", "reroll", "reused", "failed", "unselected", "waiting", "withdrawn"
]
_REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_CODES: Final = {reason: code for code, reason in enumerate(_REASONS)}
_LEFT_FROM: Final = _CODES["reused"]
"""Rows with this reason, or one after it, are left as they are."""
_NOT_LOOKED_AT: Final = tuple(_CODES[reason] for reason in ("unselected", "withdrawn"))
"""Whatever their outputs are like, nothing is made of rows with these reasons, and nothing waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRows:
    """Rows that a run makes, in manifest order.

    Attributes:
        rows: Rows of the resolved manifest, with the columns that were read.
        outputs: For each row, the outputs to make; at least one.
        replaces: By row, which unwanted number each of its further outputs is made for.
    """

    rows: pa.Table
    outputs: Sequence[tuple[int, ...]]
    replaces: Mapping[int, Mapping[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedRows:
    """Consecutive rows of the manifest, each with the reason why a run makes it or leaves it.

    Attributes:
        rows: Rows of the resolved manifest, with the columns that were read.
        codes: For each row, why it is made or left: a place among all reasons.
        outputs: For each row, the outputs to make; empty for a row that is left.
        is_pending: For each row, whether there are any.
        failures: Number of rows that stay failed, by class of failure.
        replaces: By row, which unwanted number each of its further outputs is made for.
        further: By row, its outputs that replace unwanted ones: those that are made, and those that wait.
        num_waiting: Outputs that wait for `--reroll`.
        num_given_up: Outputs that are wanted and have no number left below the bound of `limits.rerolls`.
        unselected_made: Number of rows that are left out and have all their outputs.
        unselected_failed: Number of rows that are left out and had failed.
    """

    rows: pa.Table
    codes: NDArray[np.int8]
    outputs: Sequence[tuple[int, ...]]
    is_pending: NDArray[np.bool_]
    failures: Counter[str]
    replaces: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    further: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    num_waiting: int = 0
    num_given_up: int = 0
    unselected_made: int = 0
    unselected_failed: int = 0

    @property
    def reasons(self) -> list[Reason]:
        """For each row, why it is made or left."""
        return [_REASONS[code] for code in self.codes.tolist()]

    @property
    def counts(self) -> Counter[str]:
        """Number of rows for each reason that there is, in the order in which the reasons appear."""
        codes, firsts, counts = np.unique(self.codes, return_index=True, return_counts=True)
        found = sorted(zip(firsts.tolist(), codes.tolist(), counts.tolist(), strict=True))
        return Counter({_REASONS[code]: count for _, code, count in found})

    @property
    def waiting(self) -> list[str]:
        """For each row that waits, the first source that a run before has to make."""
        rows = self.rows_for("waiting")
        sources: list[str] = rows.column("waits_for").to_pylist() if rows.num_rows else []
        return sources

    def pending(self) -> PendingRows:
        """Return the rows with outputs to make; of a campaign that goes on, these are few."""
        if self.is_pending.all():
            return PendingRows(rows=self.rows, outputs=self.outputs, replaces=self.replaces)
        places = np.flatnonzero(self.is_pending).tolist()
        replaced = enumerate(places) if self.replaces else ()
        return PendingRows(
            rows=self.rows.filter(pa.array(self.is_pending)),
            outputs=[self.outputs[place] for place in places],
            replaces={row: self.replaces[place] for row, place in replaced if place in self.replaces},
        )

    def rows_for(self, reason: Reason) -> pa.Table:
        """Return the rows that are made or left for a reason."""
        is_meant = self.codes == _CODES[reason]
        return self.rows.filter(pa.array(is_meant)) if is_meant.any() else self.rows.slice(0, 0)


def classify(
    parts: Iterable[pa.Table], done: Done, selection: Selection, stages_digest: str | None = None, rerolls: int = 0
) -> Iterator[ClassifiedRows]:
    """Classify each row and list its outputs that are still to be made.

    Args:
        parts: Parts of the resolved manifest, which say of each row whether the selection picks it.
        done: What is committed.
        selection: Its `limit` and `retry_failed` count here.
        stages_digest: Settings of the stages that may block; what was blocked under others is tried again.
        rerolls: `limits.rerolls`: numbers of a row stay below num_outputs x (1 + rerolls).
    """
    num_made = 0
    is_retried = _retried(done, selection, stages_digest)
    rules = Rules(is_retried=is_retried.tolist(), rerolls=rerolls, is_rerolling=selection.is_rerolling)
    for part in parts:
        standing = done.standing(part_digests(part), part.column("id"), part.column("num_outputs"))
        is_made = standing.is_made
        reasons = _reasons(part, standing, is_made, is_retried, done.tombstones)
        choices = _choices(part, standing, rules, selection.again)
        for row, choice in choices.items():
            standing.outputs[row], standing.failure[row] = choice.outputs, choice.failure
            is_made[row] = not choice.outputs
            if reasons[row] not in _NOT_LOOKED_AT:
                reasons[row] = _CODES[choice.reason]
        if selection.limit is not None:
            is_wanted = reasons < _LEFT_FROM
            places = num_made + np.cumsum(is_wanted)
            reasons[is_wanted & (places > selection.limit)] = _CODES["unselected"]
            num_made += int(np.count_nonzero(is_wanted))
        is_left = reasons >= _LEFT_FROM
        outputs = list(standing.outputs)
        for row in np.flatnonzero(is_left & ~is_made).tolist():
            outputs[row] = ()
        failures = standing.failure[reasons == _CODES["failed"]]
        chosen = {row: choice for row, choice in choices.items() if reasons[row] not in _NOT_LOOKED_AT}
        is_unselected = reasons == _CODES["unselected"]
        yield ClassifiedRows(
            rows=part,
            codes=reasons,
            outputs=outputs,
            is_pending=~(is_made | is_left),
            failures=Counter(done.failures[failure].error_type for failure in failures.tolist()),
            replaces={row: choice.replaces for row, choice in chosen.items() if choice.replaces},
            further={row: choice.further for row, choice in chosen.items() if choice.further},
            num_waiting=sum(choice.num_waiting for choice in chosen.values()),
            num_given_up=sum(choice.num_given_up for choice in chosen.values()),
            unselected_made=int(np.count_nonzero(is_unselected & is_made)),
            unselected_failed=int(np.count_nonzero(is_unselected & ~is_made & (standing.failure >= 0))),
        )


def _retried(done: Done, selection: Selection, stages_digest: str | None) -> NDArray[np.bool_]:
    """Say of each failure of the history whether the run tries again what failed so; False at the end, for none."""
    retry = selection.retry_failed
    return np.array(
        [kind.is_retried(stages_digest) if retry is None else retry in {"", kind.error_type} for kind in done.failures]
        + [False],
        np.bool_,
    )


def _choices(
    part: pa.Table, standing: Standing, rules: Rules, made_again: Iterable[tuple[str, str, int]]
) -> dict[int, Choice]:
    """Return by its row what becomes of each request with unwanted outputs."""
    if not standing.unwanted:
        return {}
    again: dict[tuple[str, str], set[int]] = {}
    for request_id, key, n in made_again:
        again.setdefault((request_id, key), set()).add(n)
    rows = part.select(["id", "request_key", "num_outputs"]).take(pa.array(list(standing.unwanted))).to_pylist()
    return {
        place: choose(outputs, row["num_outputs"], rules, frozenset(again.get((row["id"], row["request_key"]), ())))
        for (place, outputs), row in zip(standing.unwanted.items(), rows, strict=True)
    }


def columns_for(done: Done, columns: Sequence[str]) -> list[str]:
    """Return the columns of rows that `classify` needs, some and those by which it knows what was taken down."""
    return [*columns, *(["sources"] if done.tombstones and "sources" not in columns else [])]


def _reasons(
    part: pa.Table,
    standing: Standing,
    is_made: NDArray[np.bool_],
    retried: NDArray[np.bool_],
    tombstones: Tombstones,
) -> NDArray[np.int8]:
    """Return each row's place in `_REASONS`: of what holds, the first counts."""
    is_retried = retried[standing.failure]
    holds: list[tuple[NDArray[np.bool_], Reason]] = [
        (is_made, "reused"),
        (is_retried, "retry"),
        (standing.failure >= 0, "failed"),
        (standing.is_begun, "outputs"),
        (standing.is_known, "changed"),
    ]
    if "waits_for" in part.column_names:
        is_there = np.asarray(pc.is_null(part.column("waits_for"))).astype(np.bool_)
        holds.insert(0, (~is_there, "waiting"))
    if tombstones:
        holds.insert(0, (tombstones.bar(part), "withdrawn"))
    if IS_PICKED in part.column_names:
        holds.insert(0, (~np.asarray(part.column(IS_PICKED)).astype(np.bool_), "unselected"))
    conditions, reasons = zip(*holds, strict=True)
    return np.select(conditions, [np.int8(_CODES[reason]) for reason in reasons], np.int8(_CODES["new"]))


def requests_of(parts: Iterable[ClassifiedRows], sharing: Sharing) -> Iterator[Request]:
    """Yield a request for each key with outputs to make.

    Args:
        parts: Rows that were read with all their columns.
        sharing: Which rows share a key; it has counted the same parts before.
    """
    for part in parts:
        pending = part.pending()
        rows = pending.rows
        if not rows.num_rows:
            continue
        columns = {name: rows.column(name).to_pylist() for name in _OF_PART}
        columns |= {name: _few_texts(rows.column(name)) for name in ("model", "batch_key", "shape")}
        columns["sources"] = _sources(rows.column("sources"))
        columns["attempt"] = [0] * rows.num_rows
        columns |= sharing.request_columns(rows, pending.outputs, pending.replaces)
        requests = map(Request._make, zip(*(columns[name] for name in Request._fields), strict=True))
        yield from filter(_has_outputs, requests)


_has_outputs: Final = attrgetter("outputs")
_OF_PART: Final = ("id", "request_key", "recipe", "cost_tflop")


def _few_texts(column: pa.ChunkedArray) -> list[str]:
    """Return few different texts as one object each: they are pickled once a unit and not once a row."""
    coded = column.combine_chunks().dictionary_encode()
    texts = np.array(list(map(sys.intern, coded.dictionary.to_pylist())), np.object_)
    listed: list[str] = texts[coded.indices.to_numpy()].tolist()
    return listed


def _sources(column: pa.ChunkedArray) -> list[tuple[Source, ...]]:
    if not pc.sum(pc.list_value_length(column)).as_py():
        return [()] * len(column)
    return [tuple([Source(**source) for source in sources]) for sources in column.to_pylist()]


def pending_requests(manifest: ResolvedManifest, done: Done, selection: Selection) -> Iterator[Request]:
    """Yield the requests for what is to be made of a manifest; none of them replaces another."""
    sharing = Sharing(manifest.shared_keys(), done.origins)
    for part in classify(manifest.parts(), done, selection, manifest.scanned.stages_digest):
        pending = part.pending()
        sharing.count(pending.rows, pending.outputs)
    yield from requests_of(classify(manifest.parts(), done, selection, manifest.scanned.stages_digest), sharing)


def check_selection(selection: Selection) -> None:
    """Raise JobError when a selection names an unknown class of failure."""
    if selection.retry_failed:
        check_failure_class("--retry-failed", selection.retry_failed)


def check_failure_class(option: str, error_type: str) -> None:
    """Raise JobError when an option names an unknown class of failure."""
    if error_type not in ROW_ERRORS:
        hint = did_you_mean(error_type, ROW_ERRORS) or f"there are {', '.join(sorted(ROW_ERRORS))}"
        raise JobError(f"{option} {error_type}: no such class of failure; {hint}")

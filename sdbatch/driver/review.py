"""Decisions on a campaign's outputs: taken in, and told. The server for a browser is `review_server.py`.

lines of a file, or patterns of the command line --> add_decisions() --> reviews/        effective rows --> ReviewReport
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.driver.judged import effective_rows
from sdbatch.driver.picking import Selection, picked_rows
from sdbatch.errors import UserError
from sdbatch.review.decision import NONE, Decision, time_text
from sdbatch.review.files import add_decisions, parse_lines, read_decisions
from sdbatch.review.fold import folded, last_words
from sdbatch.review.selecting import READ, decisions_on, meant_rows, refuse_picks_of_siblings
from sdbatch.review.wanted import pick_conflicts
from sdbatch.storage import Store

AHEAD_MS_MAX: Final = 24 * 3600 * 1000
"""A decision may be dated so far ahead of this machine's clock: it would be the last word for so long."""
File = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A decision, as a person reads it.

    Attributes:
        id: Id of the request.
        n: Output number.
        verdict: `approved`, `rejected`, `picked` or `none`.
        by: Who decided.
        at: When.
        note: What the person wrote.
    """

    id: str
    n: int
    verdict: str
    by: str
    at: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewReport:
    """What people think of a campaign's effective outputs.

    Attributes:
        saved: Decisions that this call added.
        outputs: Made outputs that are shown.
        verdicts: Number of them by verdict; `open` without one.
        picks: Rows of the manifest of which more than one output is picked, in words: none of theirs is delivered.
        stale: Decisions on outputs of which another file is stored now: they do not count.
        unknown: Decisions on outputs that are not among the effective ones: of older versions, of rows that left, or
            replaced since.
        decisions: The last word of each reviewer on each of the effective outputs that were judged.
    """

    saved: int = 0
    outputs: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    picks: list[str] = field(default_factory=list)
    stale: list[Review] = field(default_factory=list)
    unknown: int = 0
    decisions: list[Review] = field(default_factory=list)


def review_report(store: Store, saved: int = 0, selection: Selection | None = None) -> ReviewReport:
    """Return what people think of the newest run's outputs.

    Args:
        store: The campaign.
        saved: Decisions that were added just now.
        selection: Of which outputs, by the metadata's columns; all by default.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
        UserError: When a file of decisions is not readable.
    """
    decisions, files = read_decisions(store)
    parts = Campaign(store).effective(folded(decisions, files)).parts()
    every: list[pa.Table] = []
    picked = set(_made(_read(picked_rows(_noted(parts, every), selection or Selection()))))
    rows = _read(every)
    made = _made(rows)
    current: list[Review] = []
    stale: list[Review] = []
    num_unknown = 0
    for file, words in last_words(decisions).items():
        if file[:3] not in made:
            num_unknown += len(words)
        if file[:3] not in picked:
            continue
        kept = current if made[file[:3]]["sha256"] == file[3] else stale
        kept += [_review(word) for word in words.values() if word.verdict != NONE or word.comment]
    counts = Counter(row["verdict"] or "open" for row in map(made.__getitem__, picked))
    ids = {request_id for request_id, _, _ in picked}
    return ReviewReport(
        saved=saved,
        outputs=len(picked),
        verdicts=dict(sorted(counts.items())),
        picks=[str(conflict) for conflict in pick_conflicts(rows) if conflict.id in ids],
        stale=sorted(stale, key=_place),
        unknown=num_unknown,
        decisions=sorted(current, key=_place),
    )


def import_decisions(store: Store, data: bytes, name: str, by: str) -> int:
    """Add a file's decisions to a campaign; return how many it did not have.

    Args:
        store: The campaign.
        data: Lines of JSON.
        name: Of the file, for messages.
        by: Who decided, for lines that do not say.

    Raises:
        JobError: When the campaign has no run.
        UserError: With the number of every line that is wrong; then nothing is added.
    """
    Campaign(store).newest_run()
    decisions = parse_lines(data, name, by)
    refuse_future(decisions, name)
    return add_decisions(store, decisions)


def refuse_future(decisions: Sequence[Decision], name: str) -> None:
    """Raise UserError for a decision that is dated too far ahead: nobody could take it back."""
    latest_ms = int(time.time() * 1000) + AHEAD_MS_MAX
    ahead = next((one for one in decisions if one.at_ms > latest_ms), None)
    if ahead is not None:
        raise UserError(
            f"{name}: the decision on {ahead.id}/{ahead.n} is of {ahead.at}, more than a day ahead of this machine's "
            "clock; set the clock of the machine it was made on, and decide again"
        )


def decide(
    store: Store, patterns: Mapping[str, Iterable[str]], note: str, by: str, selection: Selection | None = None
) -> int:
    """Decide on outputs that patterns mean; return the number of decisions that were added.

    Args:
        store: The campaign.
        patterns: By verdict (`none` withdraws what the same person said), what is meant: `mug-1`, `mug-*`, `mug-1/2`.
        note: What the person writes beside it; "" for nothing.
        by: Who decides.
        selection: The patterns mean outputs among these alone, by the metadata's columns; all by default.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
        UserError: When a pattern means nothing, or an output would get two verdicts; then nothing is added.
    """
    rows = _read(picked_rows(effective_rows(store).parts(), selection or Selection())).to_pylist()
    now_ms = int(time.time() * 1000)
    taken: dict[File, str] = {}
    decisions: list[Decision] = []
    for verdict, texts in patterns.items():
        meant = [row for found in meant_rows(rows, texts).values() for row in found]
        if verdict == "picked":
            refuse_picks_of_siblings(meant)
        for one in decisions_on(meant, verdict, note, by, now_ms):
            file = one[:4]
            if taken.setdefault(file, verdict) != verdict:
                raise UserError(f"{one.id}/{one.n}: is to be both {taken[file]} and {verdict}; say one")
            decisions.append(one)
    return add_decisions(store, decisions)


_NO_ROWS: Final = pa.table({name: pa.nulls(0) for name in READ})


def _read(parts: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([part.select(list(READ)) for part in parts] or [_NO_ROWS])


def _noted(parts: Iterable[pa.Table], every: list[pa.Table]) -> Iterator[pa.Table]:
    """Pass parts on, and keep of each what a review reads: a row's texts, recipe and stages are many times that."""
    for part in parts:
        every.append(part.select(list(READ)))
        yield part


def _made(rows: pa.Table) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the made outputs by id, request key and number."""
    return {(row["id"], row["request_key"], row["n"]): row for row in rows.to_pylist() if row["status"] == "ok"}


def _review(word: Decision) -> Review:
    return Review(id=word.id, n=word.n, verdict=word.verdict, by=word.by, at=time_text(word.at_ms), note=word.comment)


def _place(review: Review) -> tuple[Any, ...]:
    return review.id, review.n, review.at, review.by

"""Decisions, in any order and any number of times, become one verdict for each judged file.

    decisions --> last word per (file, reviewer) --> over reviewers --> Verdicts

The last word is the one with the latest time, of equal times the one with the larger digest of its line. Over
reviewers rejected counts before picked, and picked before approved. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from sdbatch.review.decision import NONE, Decision
from sdbatch.verdicts import VERDICT_ROWS, VERDICTS, Verdicts

File = tuple[str, str, int, str]
"""(id, request key, n, sha256): what a decision is bound to."""
_RANK: Final = {verdict: rank for rank, verdict in enumerate((*VERDICTS, NONE))}


def last_words(decisions: Iterable[Decision]) -> dict[File, dict[str, Decision]]:
    """Return each reviewer's last word on each file."""
    words: dict[File, dict[str, Decision]] = {}
    for decision in decisions:
        of_file = words.setdefault(decision[:4], {})
        before = of_file.get(decision.by)
        if before is None or _is_later(decision, before):
            of_file[decision.by] = decision
    return words


def folded(decisions: Iterable[Decision], files: Iterable[str] = ()) -> Verdicts:
    """Return the verdicts that follow from decisions.

    Args:
        decisions: In any order.
        files: The files that they were read from.
    """
    columns = list(zip(*_counting(decisions), strict=True)) or [()] * len(Decision._fields)
    values = dict(zip(Decision._fields, columns, strict=True))
    verdicts = [None if verdict == NONE else verdict for verdict in values["verdict"]]
    table = {
        **{name: values[name] for name in ("id", "request_key", "n", "sha256")},
        "verdict": verdicts,
        "reviewed_by": values["by"],
        "reviewed_at": values["at_ms"],
        "note": [comment or None for comment in values["comment"]],
    }
    arrays = [pa.array(table[field.name], field.type) for field in VERDICT_ROWS]
    return Verdicts(rows=pa.table(arrays, schema=VERDICT_ROWS), files=tuple(sorted(files)))


def _is_later(decision: Decision, before: Decision) -> bool:
    if decision.at_ms != before.at_ms:
        return decision.at_ms > before.at_ms
    return _digest(decision) > _digest(before)


def _digest(decision: Decision) -> str:
    return hashlib.sha256(decision.line.encode()).hexdigest()


def _counting(decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Yield the decision that counts of each file's last words; none where all of them were withdrawn."""
    # Flat dictionaries: one of each file's reviewers by themselves took twice as long for hundreds of thousands.
    last: dict[tuple[File, str], Decision] = {}
    for decision in decisions:
        place = (decision[:4], decision.by)
        before = last.get(place)
        if before is None or _is_later(decision, before):
            last[place] = decision
    best: dict[File, Decision] = {}
    for (file, _), word in last.items():
        other = best.get(file)
        if other is None or _order(word) < _order(other):
            best[file] = word
    return (word for word in best.values() if word.verdict != NONE or word.comment)


def _order(word: Decision) -> tuple[int, int, bool, str]:
    # Of several reviewers who say the same the latest is named; a note without a verdict counts where none has one.
    return _RANK[word.verdict], -word.at_ms, not word.comment, word.by

"""Which outputs a person means on the command line, and the decisions that follow.

effective rows + "mug-*" or "mug-1/2" --> meant_rows()        rows + verdict --> decisions_on()
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from sdbatch.errors import UserError
from sdbatch.review.decision import COMMENT_CHARACTERS_MAX, Decision, checked_name, checked_text

Row = Mapping[str, Any]
READ: Final = ("id", "request_key", "n", "status", "sha256", "verdict", "reviewed_by", "reviewed_at", "note")
"""Columns of the metadata that a review reads."""
_PLACE = re.compile(r"(?P<ids>[^/]+)(/(?P<n>\d{1,9}))?")


def meant_rows(rows: Iterable[Row], patterns: Iterable[str]) -> dict[str, list[Row]]:
    """Return for each pattern the made outputs that it means.

    Args:
        rows: Effective rows.
        patterns: An id, or a glob of ids, and after a slash an output number; without one every output is meant.

    Raises:
        UserError: When a pattern is none, or means no made output.
    """
    meant: dict[str, list[Row]] = {pattern: [] for pattern in patterns}
    places = {pattern: _place_of(pattern) for pattern in meant}
    for row in rows:
        for pattern, (ids, n) in places.items():
            if row["status"] == "ok" and fnmatchcase(row["id"], ids) and n in {None, row["n"]}:
                meant[pattern].append(row)
    for pattern, found in meant.items():
        if not found:
            raise UserError(f"{pattern}: means no output that is made and wanted; `sdbatch metadata` lists them")
    return meant


def refuse_picks_of_siblings(rows: Iterable[Row]) -> None:
    """Raise UserError when of one row several outputs are to be picked."""
    picked: dict[tuple[str, str], int] = {}
    for row in rows:
        n = picked.setdefault((row["id"], row["request_key"]), row["n"])
        if n != row["n"]:
            raise UserError(
                f"--pick {row['id']}: means outputs {n} and {row['n']}; one of a row can be picked: {row['id']}/{n}"
            )


def decisions_on(rows: Iterable[Row], verdict: str, note: str, by: str, at_ms: int) -> Iterator[Decision]:
    """Yield a decision for each row.

    Raises:
        UserError: When the note or the name is none.
    """
    try:
        name, text = checked_name(by), checked_text("--note", note, COMMENT_CHARACTERS_MAX)
    except ValueError as error:
        raise UserError(str(error)) from error
    for row in rows:
        yield Decision(row["id"], row["request_key"], row["n"], row["sha256"], verdict, text, name, at_ms)


def _place_of(pattern: str) -> tuple[str, int | None]:
    found = _PLACE.fullmatch(pattern)
    if found is None:
        raise UserError(f"{pattern}: is no id, glob of ids or ID/N, such as mug-1, 'mug-*' or mug-1/2")
    return found["ids"], None if found["n"] is None else int(found["n"])

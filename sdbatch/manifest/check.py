"""Checks that need no model: ids and texts of rows. The plan checks the rest.

RowBatch --> check_text() --> problems          every id --> Duplicates --> problems
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbatch.errors import Problem
from sdbatch.manifest.read import RowBatch, Shard, read_batches
from sdbatch.manifest.row_place import ID, problem_at
from sdbatch.manifest.values import NORMALIZED

PROMPT_CHARS_MAX = 8000
# Control characters but newline and tab, and marks that turn the direction of text (a file name can hide behind one).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACE, _TILDE = ord(" "), ord("~")
"""All letters of ASCII that are printable stand between these two."""
_IDS = re.compile(f"(?:{ID.pattern}\n)*+")
"""Any number of ids, each with a line break after it."""
PROBLEMS_MAX = 1000
"""Problems that are kept for the user; further ones are only counted."""


class Problems:
    """Counts the problems of a manifest, and keeps the first `PROBLEMS_MAX`."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self.count += 1
        if len(self.kept) < PROBLEMS_MAX:
            self.kept.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several."""
        for problem in problems:
            self.add(problem)


def check_text(batch: RowBatch) -> Iterator[Problem]:
    """Check ids, prompts and seed groups of a batch."""
    ids = batch.columns.get("id", [])
    for offset, value in () if _are_ids(ids) else enumerate(ids):
        if not isinstance(value, str) or not ID.fullmatch(value):
            message = "is not an id; ids are [A-Za-z0-9][A-Za-z0-9._-]{0,127}" if value else "is missing"
            yield problem_at(batch, offset, "id", value, message)
    for column in NORMALIZED:
        texts = batch.columns.get(column, [])
        for offset, value in () if _are_plain(texts) else enumerate(texts):
            problem = None if value is None else _text_problem(value)
            if problem:
                yield problem_at(batch, offset, column, value, problem)


def _are_ids(values: Sequence[Any]) -> bool:
    """Whether all values are ids; one check of the whole batch is faster than a check of each."""
    if None in values:
        return False
    lines = "\n".join([*values, ""])
    return lines.count("\n") == len(values) and _IDS.fullmatch(lines) is not None


def _are_plain(values: Sequence[str | None]) -> bool:
    """Whether all texts are short and printable ASCII; then none of them has a problem."""
    texts = list(filter(None, values))
    joined = "".join(texts)
    if not joined:
        return True
    letters = np.frombuffer(joined.encode(), np.uint8) if joined.isascii() else None
    is_printable = letters is not None and letters.min() >= _SPACE and letters.max() <= _TILDE
    return bool(is_printable) and max(map(len, texts)) <= PROMPT_CHARS_MAX


def _text_problem(text: str) -> str | None:
    if len(text) > PROMPT_CHARS_MAX:
        return f"has {len(text)} characters, over {PROMPT_CHARS_MAX}"
    if control := _CONTROL.search(text):
        return f"holds the control character U+{ord(control.group()):04X}; only newline and tab are taken"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode normal form NFC"
    return None


class Duplicates:
    """Finds ids that appear twice, in 8 bytes a row."""

    def __init__(self) -> None:
        self._hashes = array("q")  # one that grows: arrays that are put together at the end are there twice

    def add(self, batch: RowBatch) -> NDArray[np.int64]:
        """Remember a batch's ids; return Python's hash of each."""
        ids = batch.columns.get("id", [])
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        self._hashes.frombytes(hashes.tobytes())
        return hashes

    def problems(self, shards: Iterable[Shard]) -> Iterator[Problem]:
        """Yield a problem for every id that appeared before; reads the ids again, only when two hashes are equal."""
        hashes = np.frombuffer(self._hashes, np.int64)
        self._hashes = array("q")
        hashes.sort()  # in place: ten million rows would otherwise take several times their 80 MB
        suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        del hashes
        if not suspects:
            return
        first: dict[str, str] = {}
        for shard in shards:
            for batch in read_batches(shard):
                for offset, value in enumerate(batch.columns.get("id", [])):
                    if value is None or hash(value) not in suspects:
                        continue
                    if value in first:
                        yield problem_at(batch, offset, "id", value, f"appears twice; first in {first[value]}")
                    else:
                        place = dataclasses.replace(problem_at(batch, offset, "id", value, ""), id=None).place
                        first[value] = place

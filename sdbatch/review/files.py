"""The decisions of a campaign as they lie in it: files that are written once, and read together.

    lines --> parse_lines() --> add_decisions() --> reviews/<utc>-<sha8>.jsonl, put if absent --> read_decisions()

A file's name follows from its content, and decisions that the campaign has already are left out: importing twice
changes nothing. The order of files and lines means nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from sdbatch.errors import NewerFormat, UserError
from sdbatch.review.decision import Decision, NewerDecision, parse_decision
from sdbatch.review.fold import folded
from sdbatch.storage import Entry, Store
from sdbatch.verdicts import NO_VERDICTS, Verdicts

REVIEWS: Final = "reviews"
FILE_BYTES_MAX: Final = 64 << 20
"""Longest file of decisions."""
LINES_MAX: Final = 200_000
"""Most decisions in one file."""
ALL_BYTES_MAX: Final = 1 << 30
"""Most bytes of decisions that one campaign has."""
_FAULTS_SHOWN: Final = 20
_READ_THREADS: Final = 8
_NAME: Final = re.compile(r"reviews/\d{8}T\d{6}Z-([0-9a-f]{8})\.jsonl")
_BOM: Final = b"\xef\xbb\xbf"


def parse_lines(data: bytes, name: str, by: str | None = None) -> list[Decision]:
    """Read a file of decisions.

    Args:
        data: The whole file.
        name: Its path or URL, for the message.
        by: Who decided, for lines that do not say.

    Raises:
        UserError: With the number of every line that is wrong.
        NewerFormat: When a later version wrote one.
    """
    _check_length(name, len(data))
    lines = data.removeprefix(_BOM).split(b"\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if not line.isspace() and line]
    if len(numbered) > LINES_MAX:
        raise UserError(f"{name}: has {len(numbered)} decisions; one file has at most {LINES_MAX}")
    decisions: list[Decision] = []
    faults: list[str] = []
    for number, line in numbered:
        try:
            decisions.append(parse_decision(line, by))
        except NewerDecision as error:
            raise NewerFormat(f"{name}: line {number} {error}") from error
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = [f"... and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        raise UserError(
            "\n".join([f"{name}: {len(faults)} of {len(numbered)} lines are wrong:", *faults[:_FAULTS_SHOWN], *more])
        )
    return decisions


def read_decisions(store: Store) -> tuple[list[Decision], tuple[str, ...]]:
    """Return every decision of a campaign, and the files they were read from.

    Raises:
        UserError: When a file is not readable; to pass it over would change verdicts in silence.
    """
    files = _files(store)
    return list(_decisions(store, [entry.path for entry in files])), tuple(entry.path for entry in files)


def read_verdicts(store: Store, files: Iterable[str] | None = None) -> Verdicts:
    """Return what people think of a campaign's outputs.

    Args:
        store: The campaign.
        files: Only these files of decisions count; all by default.

    Raises:
        UserError: When a file is not readable, or one of `files` is not there.
    """
    paths = [entry.path for entry in _files(store)] if files is None else sorted(files)
    return folded(_decisions(store, paths), paths) if paths else NO_VERDICTS


def altered_files(store: Store) -> list[str]:
    """Return the files of decisions whose names say another content: they were edited, or cut off."""
    named = [(entry.path, found[1]) for entry in _files(store) if (found := _NAME.fullmatch(entry.path))]
    return [path for path, digits in named if digits not in _eights(hashlib.sha256(store.read(path)).hexdigest())]


def add_decisions(store: Store, decisions: Iterable[Decision]) -> int:
    """Write those decisions that a campaign does not have yet; return their number.

    Raises:
        UserError: When a file that is there is not readable.
    """
    return DecisionBook(store).add(decisions)


class DecisionBook:
    """The decisions of a campaign, read once, to which some are added now and then.

    Args:
        store: The campaign.

    Raises:
        UserError: When a file that is there is not readable.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._there = set(read_decisions(store)[0])

    def add(self, decisions: Iterable[Decision]) -> int:
        """Write those decisions that are not there yet; return their number."""
        fresh = set(decisions) - self._there
        lines = sorted((decision.at_ms, decision.line) for decision in fresh)
        for start in range(0, len(lines), LINES_MAX):
            _put(self._store, lines[start : start + LINES_MAX])
        self._there |= fresh
        return len(fresh)


def _put(store: Store, lines: list[tuple[int, str]]) -> None:
    data = "".join(f"{line}\n" for _, line in lines).encode()
    digest = hashlib.sha256(data).hexdigest()
    newest = datetime.fromtimestamp(lines[-1][0] / 1000, UTC)
    for digits in _eights(digest):
        path = f"{REVIEWS}/{newest:%Y%m%dT%H%M%SZ}-{digits}.jsonl"
        if store.put_new(path, data, "application/x-ndjson") or store.read(path) == data:
            return


def _eights(digest: str) -> list[str]:
    """Return eight digits after eight: the first name a file, the next where another file has these."""
    return [digest[start : start + 8] for start in range(0, len(digest), 8)]


def _files(store: Store) -> list[Entry]:
    """Return the files of decisions, also those that somebody copied there under a name of their own."""
    entries = [entry for entry in store.list(REVIEWS, deep=False) if entry.path.endswith(".jsonl")]
    for entry in entries:
        _check_length(f"{store.url}/{entry.path}", entry.size_bytes)
    num_bytes = sum(entry.size_bytes for entry in entries)
    if num_bytes > ALL_BYTES_MAX:
        raise UserError(f"{store.url}/{REVIEWS}: has {num_bytes} bytes of decisions; at most {ALL_BYTES_MAX} are read")
    return entries


def _check_length(name: str, num_bytes: int) -> None:
    if num_bytes > FILE_BYTES_MAX:
        raise UserError(f"{name}: has {num_bytes} bytes; a file of decisions has at most {FILE_BYTES_MAX}")


def _decisions(store: Store, paths: Iterable[str]) -> Iterator[Decision]:
    def read(path: str) -> bytes:
        try:
            return store.read(path)
        except FileNotFoundError as error:
            raise UserError(f"{store.url}/{path}: is not there; restore it, decisions are never removed") from error

    waiting = iter(paths)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        while chunk := list(islice(waiting, _READ_THREADS)):  # few files are held at a time
            for path, data in zip(chunk, pool.map(read, chunk), strict=True):
                yield from parse_lines(data, f"{store.url}/{path}")

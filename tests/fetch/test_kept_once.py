"""Many threads ask for one thing: it is got once, and no fault is remembered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sdbatch.errors import SourceMissing
from sdbatch.fetch.kept_once import KeptOnce


def test_many_who_ask_at_once_cause_one_read() -> None:
    kept, begun = KeptOnce[bytes](100, len), threading.Barrier(4)
    reads: list[str] = []

    def read() -> bytes:
        reads.append("a")
        return b"data"

    def ask(_: int) -> bytes:
        begun.wait(10)
        return kept.get("a", read)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [b"data"] * 4
    assert len(reads) == 1


def test_what_was_asked_for_longest_ago_is_read_anew_beyond_the_bound() -> None:
    kept = KeptOnce[bytes](250, len)
    reads: list[str] = []

    def read(key: str) -> bytes:
        reads.append(key)
        return b"x" * 100

    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, partial(read, key))

    assert reads == ["a", "b", "c", "b"]


def test_a_fault_is_told_and_not_kept() -> None:
    kept = KeptOnce[bytes](100, len)

    def fail() -> bytes:
        raise SourceMissing("gone")

    with pytest.raises(SourceMissing):
        kept.get("a", fail)
    assert kept.get("a", lambda: b"back") == b"back"

"""The ledger of a target: what was changed, moved or taken out of it shows, with its number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.stores import CountingStore

from sdbatch.deliver.ledger import read_ledger, written
from sdbatch.storage import LocalStore

Lines = list[bytes]


def _rows(names: str) -> dict[str, dict[str, Any]]:
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return {name: {"name": name, "status": "ok", "ledger": None, "sha256": digest} for name, digest in sums.items()}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A target of three ledger files of 4, 3 and 2 lines."""
    made = LocalStore(str(tmp_path))
    for hour, names, removed in (("01", "abc", ()), ("02", "de", ()), ("03", "", ("a",))):
        written(made, "deliveries", {"delivery": "d"}, _rows(names), removed, f"20260101T{hour}0000Z")
    return made


def _files(store: LocalStore) -> list[Path]:
    return sorted((Path(store.url) / "deliveries").glob("*.jsonl"))


def test_what_was_not_touched_holds_and_tells_what_is_there(store: LocalStore) -> None:
    ledger = read_ledger(store, "deliveries")

    assert (ledger.files, ledger.lines, ledger.faults, ledger.forks) == (3, 9, [], [])
    assert sorted(ledger.told) == ["b", "c", "d", "e"]
    assert ledger.told["d"]["sha256"] == hashlib.sha256(b"d").hexdigest()


def _changed(number: int, key: str = "n", value: Any = "other") -> Callable[[Lines], Lines]:
    def change(lines: Lines) -> Lines:
        body = json.loads(lines[number - 1])
        body[key] = value
        return [*lines[: number - 1], json.dumps(body, sort_keys=True).encode(), *lines[number:]]

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_changed(1), "line 2 does not follow line 1"),
        (_changed(1, "previous", ["no digest"]), "line 2 does not follow line 1"),
        (_changed(2), "line 3 does not follow line 2"),
        (_changed(3), "line 4 does not follow line 3"),
        (_changed(4), "line 4 is not the one its name was made from"),
        (lambda lines: lines[1:], "line 1 has version None"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 does not follow line 1"),
        (lambda lines: [*lines[:2], lines[3]], "line 3 does not follow line 2"),
        (lambda lines: lines[:3], "line 4 is missing: the file had 4 lines"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2 does not follow line 1"),
        (lambda lines: [*lines[:2], lines[3], lines[2]], "line 3 does not follow line 2"),
        (lambda lines: [*lines, lines[3]], "line 5 does not follow line 4"),
        (lambda lines: [*lines[:2], b"{", lines[3]], "line 3 cannot be read"),
        (lambda _: [], "line 1 is missing"),
    ],
)
def test_a_line_that_was_changed_removed_or_moved_is_found_with_its_number(
    store: LocalStore, damage: Callable[[Lines], Lines], said: str
) -> None:
    first, second, _ = _files(store)
    lines = first.read_bytes().split(b"\n")[:-1]
    first.write_bytes(b"".join(line + b"\n" for line in damage(lines)))
    faults = read_ledger(store, "deliveries").faults

    assert faults[0].startswith(f"{first.name}: {said}")
    assert faults[1] == f"{second.name}: names a file before it that is not there: one was removed or changed"
    assert len(faults) == 2


def test_a_file_that_was_taken_out_is_missed_by_the_next(store: LocalStore) -> None:
    _, second, third = _files(store)
    second.unlink()

    assert read_ledger(store, "deliveries").faults == [
        f"{third.name}: names a file before it that is not there: one was removed or changed"
    ]


def test_the_newest_file_is_missed_too(store: LocalStore) -> None:
    *_, third = _files(store)
    third.unlink()

    assert read_ledger(store, "deliveries").faults == [f"latest.json: names {third.name}, which is not there"]


def test_a_new_file_costs_the_same_however_many_there_are(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    calls = []
    for number in range(60):
        store.set_fault(None)
        written(store, "deliveries", {"delivery": "d"}, _rows(chr(65 + number)), (), f"20260101T0000{number:02d}Z")
        calls.append((store.lists, store.gets, store.heads, store.puts))

    assert calls[0] == (1, 1, 0, 2), "the first one looks for files of an older version"
    assert set(calls[1:]) == {(0, 1, 0, 2)}
    ledger = read_ledger(store, "deliveries")
    assert (ledger.files, ledger.faults, ledger.forks) == (60, [], [])


def test_files_of_one_second_are_read_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    for number in range(8):  # the order of names within a second is that of their digests
        store = LocalStore(str(tmp_path / str(number)))
        head = {"delivery": f"d{number}"}
        written(store, "deliveries", head, _rows("ab"), (), "20260101T000000Z")
        written(store, "deliveries", head, {}, ("a",), "20260101T000000Z")

        assert sorted(read_ledger(store, "deliveries").told) == ["b"]


def test_a_fork_is_listed_and_is_no_fault(store: LocalStore) -> None:
    first, second, third = _files(store)
    for file in (second, third, second.with_name("latest.json")):
        file.rename(file.with_suffix(".aside"))
    written(store, "deliveries", {"delivery": "d"}, _rows("x"), (), "20260101T015000Z")
    for file in (second, third):
        file.with_suffix(".aside").rename(file)
    ledger = read_ledger(store, "deliveries")

    assert (ledger.files, ledger.faults, ledger.forks) == (4, [], [first.name])


def test_an_older_ledger_is_read_without_digests_of_lines(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    lines = [{"format_version": 1, "previous": None}, {"made": {"name": "a", "sha256": "b"}}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    store.put_new(f"deliveries/20260101T000000Z-{hashlib.sha256(data).hexdigest()[:8]}.jsonl", data)
    ledger = read_ledger(store, "deliveries")

    assert (ledger.faults, sorted(ledger.told)) == ([], ["a"])

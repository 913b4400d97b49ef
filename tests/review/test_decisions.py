"""Decisions as lines, as files, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from support.decisions import FILES, KEY, LINE, made

from sdbatch.canonical import canonical
from sdbatch.errors import NewerFormat, UserError
from sdbatch.review import decision as decision_module
from sdbatch.review import files as files_module
from sdbatch.review.decision import COMMENT_CHARACTERS_MAX, WORDS, Decision, parse_decision
from sdbatch.review.files import add_decisions, altered_files, parse_lines, read_decisions, read_verdicts
from sdbatch.review.fold import folded
from sdbatch.review.wanted import pick_conflicts, wanted_rows
from sdbatch.storage import open_store

DECISIONS = st.builds(
    Decision,
    id=st.sampled_from(["a", "b"]),
    request_key=st.just(KEY),
    n=st.integers(0, 1),
    sha256=st.sampled_from(FILES),
    verdict=st.sampled_from(WORDS),
    comment=st.sampled_from(["", "too dark"]),
    by=st.sampled_from(["jane", "joe", "kim"]),
    at_ms=st.integers(0, 3).map(lambda step: 1_790_000_000_000 + step),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=40)


@given(TEXTS, TEXTS.filter(str.strip), st.integers(0, 253_402_300_799_999), st.integers(0, 2**31 - 1))
def test_a_line_is_canonical_and_read_back_as_it_was(comment: str, by: str, at_ms: int, n: int) -> None:
    one = made(comment=comment, by=by, n=n)._replace(at_ms=at_ms)
    line = one.line

    assert line == canonical(json.loads(line))
    assert parse_decision(line.encode()) == one
    assert parse_decision((line + " ").encode()) == one, "the fast way and the other one agree"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "aproved"}, 'verdict "aproved" is none of rejected, picked, approved, none'),
        ({"n": -1}, "n -1 is no whole number in 0..2147483647"),
        ({"n": True}, "n true is no whole number"),
        ({"n": 0.0}, "n 0.0 is no whole number"),
        ({"id": "../x"}, 'id "../x" is not an id'),
        ({"request_key": KEY[:8]}, "is not 64 hex digits"),
        ({"sha256": None}, "sha256 null is not 64 hex digits"),
        ({"at": "2026-11-26T10:00:00"}, "is no time with its zone"),
        ({"at": 5}, "is no time with its zone"),
        ({"at": "1969-12-31T23:59:59Z"}, "is not between the years 1970 and 9999"),
        ({"by": ""}, 'by "" is no name'),
        ({"by": "a\nb"}, "is no name"),
        ({"by": ["jane"]}, "is no text"),
        ({"comment": "x" * (COMMENT_CHARACTERS_MAX + 1)}, "comment has 2001 characters, over 2000"),
        ({"comment": "\x1b[31m"}, "has a control character"),
        ({"comment": "\ud800"}, "half of a surrogate pair"),
        ({"format_version": "1"}, "is no version"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_with_the_value_and_the_bound(
    changes: dict[str, Any], message: str
) -> None:
    data = "\n".join([json.dumps(LINE), "", json.dumps({**LINE, **changes}), "no json", json.dumps(LINE)]).encode()

    with pytest.raises(UserError) as raised:
        parse_lines(data, "d.jsonl")
    lines = str(raised.value).split("\n")
    assert lines[0] == "d.jsonl: 2 of 4 lines are wrong:"
    assert lines[1].startswith("line 3: ")
    assert message in lines[1]
    assert lines[2] == "line 4: is no JSON"


def test_lines_and_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a decision has at most 16384"):
        parse_lines(json.dumps({**LINE, "more": "x" * 20_000}).encode(), "d")
    monkeypatch.setattr(files_module, "LINES_MAX", 2)
    with pytest.raises(UserError, match="has 3 decisions; one file has at most 2"):
        parse_lines(b"\n".join([json.dumps(LINE).encode()] * 3), "d")
    monkeypatch.setattr(files_module, "FILE_BYTES_MAX", 10)
    with pytest.raises(UserError, match="a file of decisions has at most 10"):
        parse_lines(b"x" * 11, "d")


def test_brackets_within_brackets_are_no_json() -> None:
    with pytest.raises(UserError, match="line 1: is no JSON"):
        parse_lines(b"[" * 8000 + b"]" * 8000, "d")


def test_a_newer_line_is_refused_by_its_version() -> None:
    with pytest.raises(NewerFormat, match="line 2 has format_version 2; this sdbatch reads up to 1"):
        parse_lines("\n".join([json.dumps(LINE), json.dumps({**LINE, "format_version": 2})]).encode(), "d")


def test_a_file_from_windows_is_read() -> None:
    assert parse_lines(b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n", "d") == [made()]


# --- what follows ---------------------------------------------------------------------------------------------------


def _plainly(decisions: list[Decision]) -> dict[tuple[str, int, str], tuple[str, set[str]]]:
    """Say in Python's own words what decisions come to."""
    said: dict[tuple[str, int, str], tuple[str, set[str]]] = {}
    for place in {(one.id, one.n, one.sha256) for one in decisions}:
        mine = [one for one in decisions if (one.id, one.n, one.sha256) == place]
        order = {one: (one.at_ms, hashlib.sha256(one.line.encode()).hexdigest()) for one in mine}
        last = [max((one for one in mine if one.by == by), key=order.__getitem__) for by in {one.by for one in mine}]
        for verdict in ("rejected", "picked", "approved"):
            who = [one for one in last if one.verdict == verdict]
            if who:
                newest = max(one.at_ms for one in who)
                said[place] = verdict, {one.by for one in who if one.at_ms == newest}
                break
    return said


@settings(max_examples=40)
@given(st.lists(DECISIONS, max_size=12), st.randoms(use_true_random=False))
def test_verdicts_are_the_last_word_of_each_reviewer_in_whatever_order(
    decisions: list[Decision], chance: random.Random
) -> None:
    rows = folded(decisions).rows
    shuffled = [*decisions, *decisions]
    chance.shuffle(shuffled)

    assert rows.sort_by([(name, "ascending") for name in ("id", "n", "sha256")]) == folded(shuffled).rows.sort_by(
        [(name, "ascending") for name in ("id", "n", "sha256")]
    )
    plain = _plainly(decisions)
    found = {(row["id"], row["n"], row["sha256"]): row for row in rows.to_pylist() if row["verdict"]}
    assert found.keys() == plain.keys()
    for place, (verdict, who) in plain.items():
        assert found[place]["verdict"] == verdict
        assert found[place]["reviewed_by"] in who


def test_a_note_stays_without_a_verdict_and_a_withdrawal_leaves_nothing() -> None:
    noted = folded([made(verdict="none", comment="shadow is odd")]).rows.to_pylist()

    assert [(row["verdict"], row["note"], row["reviewed_by"]) for row in noted] == [(None, "shadow is odd", "jane")]
    assert not folded([made(), made(verdict="none", at="2026-11-26T11:00:00Z")]).rows.num_rows


# --- files ----------------------------------------------------------------------------------------------------------


def test_importing_twice_changes_nothing_and_only_what_is_new_is_written(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    first = [made(), made(n=1, verdict="rejected"), made()]

    assert add_decisions(store, first) == 2
    names = [entry.path for entry in store.list("reviews")]
    assert add_decisions(store, reversed(first)) == 0
    assert [entry.path for entry in store.list("reviews")] == names
    digest = hashlib.sha256(store.read(names[0])).hexdigest()
    assert names == [f"reviews/20261126T100000Z-{digest[:8]}.jsonl"]
    assert add_decisions(store, [*first, made(n=2, at="2026-11-27T00:00:00Z")]) == 1
    assert len(store.list("reviews")) == 2
    assert set(read_decisions(store)[0]) == {*first, made(n=2, at="2026-11-27T00:00:00Z")}
    assert read_verdicts(store, names).rows.num_rows == 2


def test_a_file_under_a_name_of_its_own_counts_and_an_edited_one_is_found(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    store.put_new("reviews/from-joe.jsonl", made(by="joe", verdict="rejected").line.encode())
    add_decisions(store, [made()])
    (path,) = [entry.path for entry in store.list("reviews") if "joe" not in entry.path]

    assert read_verdicts(store).rows.column("verdict").to_pylist() == ["rejected"]
    assert altered_files(store) == []
    store.put(path, store.read(path).replace(b"approved", b"rejected"))
    assert altered_files(store) == [path]
    store.put(path, b"cut o")
    with pytest.raises(UserError, match=f"{path}: 1 of 1 lines are wrong"):
        read_verdicts(store)


def test_two_files_whose_digests_begin_alike_both_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path), {})
    monkeypatch.setattr(files_module, "_eights", lambda digest: ["a" * 8, digest[:8]])
    add_decisions(store, [made()])
    add_decisions(store, [made(comment="more")])

    assert set(read_decisions(store)[0]) == {made(), made(comment="more")}


def test_more_decisions_than_a_campaign_may_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path), {})
    add_decisions(store, [made()])
    monkeypatch.setattr(files_module, "ALL_BYTES_MAX", 10)

    with pytest.raises(UserError, match="bytes of decisions; at most 10 are read"):
        read_verdicts(store)


def test_a_file_of_decisions_that_was_named_and_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there; restore it"):
        read_verdicts(open_store(str(tmp_path), {}), ["reviews/20260101T000000Z-00000000.jsonl"])


def test_a_canonical_line_is_read_the_fast_way() -> None:
    assert decision_module._AS_WRITTEN.fullmatch(made(comment="too dark").line)


# --- what is handed on ----------------------------------------------------------------------------------------------


def _rows(*verdicts: tuple[str, str | None], status: str = "ok") -> pa.Table:
    ids = [name for name, _ in verdicts]
    return pa.table(
        {
            "id": ids,
            "request_key": [KEY] * len(ids),
            "n": pa.array([ids[:place].count(name) for place, name in enumerate(ids)], pa.int32()),
            "status": [status] * len(ids),
            "verdict": pa.array([verdict for _, verdict in verdicts], pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("only", "wanted", "left_out"),
    [
        ("all", ["a0", "b0", "c0", "c1"], {"rejected": 1, "another is picked": 2, "two picks": 2}),
        ("approved", ["b0", "c0"], {"rejected": 1, "another is picked": 2, "two picks": 2, "not approved": 2}),
        ("picked", ["b0"], {"rejected": 1, "another is picked": 2, "two picks": 2, "not picked": 3}),
    ],
)
def test_what_is_wanted(only: Any, wanted: list[str], left_out: dict[str, int]) -> None:
    rows = _rows(
        ("a", None), ("a", "rejected"), ("b", "picked"), ("b", "approved"), ("b", None),
        ("c", "approved"), ("c", None), ("d", "picked"), ("d", "picked"),
    )  # fmt: skip
    found = wanted_rows(rows, only)
    names = [f"{row['id']}{row['n']}" for row, why in zip(rows.to_pylist(), found.reasons, strict=True) if not why]

    assert names == wanted
    assert found.left_out == left_out
    assert [(one.id, one.numbers) for one in found.conflicts] == [("d", (0, 1))]
    assert "d: outputs 0, 1 are all picked" in str(pick_conflicts(rows)[0])


def test_what_is_not_made_is_not_counted_as_left_out() -> None:
    found = wanted_rows(_rows(("a", None), status="failed"), "all")

    assert (found.reasons, found.left_out) == (("",), {})

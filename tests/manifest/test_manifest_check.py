"""What a row says by itself: ids and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.errors import Problem
from sdbatch.manifest.check import (
    PROBLEMS_MAX,
    PROMPT_CHARS_MAX,
    Duplicates,
    Problems,
    check_text,
)
from sdbatch.manifest.read import RowBatch, Shard, list_shards, read_batches
from sdbatch.manifest.row_place import shown


def _batch(columns: dict[str, Sequence[Any]], start: int = 0) -> RowBatch:
    num_rows = len(next(iter(columns.values())))
    plain = {name: list(values) for name, values in columns.items()}
    return RowBatch(shard="a.parquet", start=start, num_rows=num_rows, columns=plain, own=pa.table({}))


def _problems(**columns: Sequence[Any]) -> list[Problem]:
    return list(check_text(_batch(columns)))


def _shards(folder: Path, *ids: list[str | None]) -> list[Shard]:
    """Write one shard for each list of ids."""
    for number, values in enumerate(ids):
        pq.write_table(pa.table({"id": pa.array(values, pa.string())}), folder / f"part-{number}.parquet")
    return list_shards(str(folder), {})


def _duplicates(shards: list[Shard]) -> list[Problem]:
    duplicates = Duplicates()
    for shard in shards:
        for batch in read_batches(shard):
            duplicates.add(batch)
    return list(duplicates.problems(shards))


# --- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", "0", "scene-0001", "A.b_c-9", "a" * 128])
def test_an_id_is_taken(value: str) -> None:
    assert _problems(id=[value]) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "../a",
        "a\n",
        "a\nb",
        "\n",
        "a\x00",
        "ä",
        "a\u202eb",
        "a" * 129,
        "a\\b",
        "٣",
    ],
)
def test_what_could_not_stand_in_a_file_name_is_no_id(value: str | None) -> None:
    (problem,) = _problems(id=[value])
    assert problem.column == "id"
    assert problem.message == ("is not an id; ids are [A-Za-z0-9][A-Za-z0-9._-]{0,127}" if value else "is missing")


def test_a_problem_names_shard_and_row_of_the_shard() -> None:
    (problem,) = check_text(_batch({"id": ["a", "b", "c d"]}, start=1024))
    assert str(problem).startswith("row 1027 of a.parquet: id 'c d' is not an id")


# --- prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    "value", ["", None, "a red fox", "two\nlines\tand a tab", "日本語, café, 🦊", "שלום", "x" * PROMPT_CHARS_MAX]
)
def test_a_prompt_is_taken(column: str, value: str | None) -> None:
    assert _problems(id=["a"], **{column: [value]}) == []


@pytest.mark.parametrize("column", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\x00b", "holds the control character U+0000; only newline and tab are taken"),
        ("a\rb", "holds the control character U+000D"),
        ("a\x1bb", "holds the control character U+001B"),
        ("a\x7fb", "holds the control character U+007F"),
        ("a\x85b", "holds the control character U+0085"),
        ("gpj\u202eexe", "holds the control character U+202E"),
        ("a\u2066b", "holds the control character U+2066"),
        ("cafe\u0301", "is not in Unicode normal form NFC"),
        ("x" * (PROMPT_CHARS_MAX + 1), f"has {PROMPT_CHARS_MAX + 1} characters, over {PROMPT_CHARS_MAX}"),
        ("ü" * (PROMPT_CHARS_MAX + 1), f"has {PROMPT_CHARS_MAX + 1} characters, over {PROMPT_CHARS_MAX}"),
    ],
)
def test_a_prompt_with_a_fault_is_refused_with_its_reason(column: str, value: str, message: str) -> None:
    (problem,) = _problems(id=["a"], **{column: [value]})
    assert problem.column == column
    assert problem.message.startswith(message)


def test_a_long_value_is_shortened_and_escaped_for_people() -> None:
    text = shown("\x1b[31m\n" + "x" * 10_000)
    assert len(text) < 100
    assert text.isprintable()


def test_every_faulty_row_of_a_batch_is_told() -> None:
    problems = _problems(id=["a", "b c", "d"], prompt=["\x00", "fine", "\x01"], negative_prompt=[None, "\x02", None])
    assert [(problem.row, problem.column) for problem in problems] == [
        (1, "id"),
        (0, "prompt"),
        (2, "prompt"),
        (1, "negative_prompt"),
    ]


def test_problems_past_the_cap_are_counted_not_kept() -> None:
    problems = Problems()
    problems.extend(_problems(id=[""] * (PROBLEMS_MAX + 5)))
    assert (problems.count, len(problems.kept)) == (PROBLEMS_MAX + 5, PROBLEMS_MAX)


# --- duplicates -----------------------------------------------------------------------------------------------------


def test_a_duplicate_across_shards_names_the_first_place(tmp_path: Path) -> None:
    shards = _shards(tmp_path, ["a", "b"], ["c", "d", "b"], ["b"])
    problems = _duplicates(shards)
    assert [(problem.shard, problem.row, problem.value) for problem in problems] == [
        (shards[1].name, 2, "'b'"),
        (shards[2].name, 0, "'b'"),
    ]
    assert {problem.message for problem in problems} == {f"appears twice; first in row 2 of {shards[0].name}"}


def test_a_duplicate_inside_a_shard_is_found(tmp_path: Path) -> None:
    ids: list[str | None] = [f"row-{number}" for number in range(3000)]
    (problem,) = _duplicates(_shards(tmp_path, [*ids, "row-17"]))
    assert (problem.row, problem.value) == (3000, "'row-17'")
    assert "first in row 18 of" in problem.message


@pytest.mark.parametrize("ids", [["a", "A"], ["a", "a.", "a-"], [None, None], []])
def test_ids_that_differ_are_no_duplicates(tmp_path: Path, ids: list[str | None]) -> None:
    assert _duplicates(_shards(tmp_path, ids)) == []


def test_no_shard_has_no_duplicates() -> None:
    assert _duplicates([]) == []

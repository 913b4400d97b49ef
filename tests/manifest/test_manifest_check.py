"""What a row says by itself: ids, prompts, and where its sources lie."""

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
    AllowList,
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
    [None, "", "-a", ".a", "_a", "a b", "a/b", "../a", "a\n", "a\x00", "ä", "a\u202eb", "a" * 129, "a\\b", "٣"],
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


# --- where sources may come from ------------------------------------------------------------------------------------


@pytest.fixture
def brand(tmp_path: Path) -> Path:
    """A folder `brand` with a picture, beside `brand-secret` with another."""
    for name in ("brand/beach.png", "brand/deep/sea.png", "brand-secret/plan.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"picture")
    return tmp_path / "brand"


@pytest.mark.parametrize("name", ["beach.png", "deep/sea.png", "not-there.png", "deep/../beach.png"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_file_under_an_allowed_folder_is_taken(brand: Path, name: str, slash: str) -> None:
    assert AllowList([f"{brand}{slash}"]).problem(f"{brand}/{name}") is None


def test_an_allowed_file_is_taken_and_its_neighbour_is_not(brand: Path) -> None:
    allow = AllowList([str(brand / "beach.png")])
    assert allow.problem(str(brand / "beach.png")) is None
    assert allow.problem(str(brand / "deep" / "sea.png")) is not None


def test_relative_places_are_taken_from_the_working_directory(brand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(brand.parent)
    allow = AllowList(["brand/"])
    assert allow.problem("brand/beach.png") is None
    assert allow.problem(str(brand / "beach.png")) is None
    assert allow.problem(f"file://{brand}/beach.png") is None
    assert allow.problem("brand-secret/plan.png") is not None


@pytest.mark.parametrize(
    "name",
    ["../brand-secret/plan.png", "deep/../../brand-secret/plan.png", "..", "../../../../../../../etc/passwd"],
)
def test_dots_do_not_leave_an_allowed_folder(brand: Path, name: str) -> None:
    assert "is outside sources.allow" in str(AllowList([str(brand)]).problem(f"{brand}/{name}"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_that_only_begins_like_an_allowed_one_is_refused(brand: Path, slash: str) -> None:
    fault = AllowList([f"{brand}{slash}"]).problem(f"{brand}-secret/plan.png")
    assert fault == f"is outside sources.allow ({brand}{slash})"


def test_a_symbolic_link_does_not_leave_an_allowed_folder(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand.parent / "brand-secret" / "plan.png")
    (brand / "folder").symlink_to(brand.parent / "brand-secret")
    allow = AllowList([str(brand)])
    assert "is outside" in str(allow.problem(f"{brand}/link.png"))
    assert "is outside" in str(allow.problem(f"{brand}/folder/plan.png"))


def test_a_symbolic_link_inside_an_allowed_folder_is_taken(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand / "beach.png")
    assert AllowList([str(brand)]).problem(f"{brand}/link.png") is None


def test_an_allowed_folder_may_itself_be_a_symbolic_link(brand: Path) -> None:
    (brand.parent / "alias").symlink_to(brand)
    allow = AllowList([str(brand.parent / "alias")])
    assert allow.problem(f"{brand.parent}/alias/beach.png") is None
    assert allow.problem(f"{brand}/beach.png") is None


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::file:///etc/passwd",
        "filecache::s3://brand/a.png",
        "zip://a.png::s3://brand/b.zip",
        "http://host/a.png",
        "memory://a.png",
        "a\x00.png",
    ],
)
def test_chained_and_foreign_urls_are_refused_even_where_everything_is_allowed(url: str) -> None:
    assert str(AllowList(["/", "s3://brand/"]).problem(url)).startswith("is refused: ")


@pytest.mark.parametrize("prefix", ["s3://brand/2026", "s3://brand/2026/"])
@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("s3://brand/2026/a.png", True),
        ("s3://brand/2026/deep/a.png", True),
        ("s3://brand/2026", True),
        ("s3://brand/2026-secret/a.png", False),
        ("s3://brand/20260/a.png", False),
        ("s3://brand/a.png", False),
        ("s3://brand-secret/2026/a.png", False),
        ("gs://brand/2026/a.png", False),
        ("s3://brand/2026/../a.png", False),
        ("s3://brand/2026//../a.png", False),
        ("/brand/2026/a.png", False),
    ],
)
def test_a_remote_prefix_holds_whole_path_parts(prefix: str, url: str, is_taken: bool) -> None:
    assert (AllowList([prefix]).problem(url) is None) == is_taken


def test_a_bucket_is_a_prefix() -> None:
    allow = AllowList(["s3://brand"])
    assert allow.problem("s3://brand/a.png") is None
    assert allow.problem("s3://brand2/a.png") is not None


@pytest.mark.parametrize("url", ["/etc/passwd", "a.png", "s3://brand/a.png"])
def test_an_empty_list_allows_nothing(url: str) -> None:
    assert AllowList([]).problem(url) == "is outside sources.allow (which is empty)"


def test_a_local_prefix_allows_nothing_remote(brand: Path) -> None:
    assert AllowList([str(brand), "/"]).problem("s3://brand/beach.png") is not None

"""Building a manifest from other tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.errors import ManifestError, UserError
from sdbatch.manifest.build import build_shards
from sdbatch.manifest.schema import COLUMNS

Rows = list[dict[str, Any]]
Build = Callable[..., Rows]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write `content` as a file of this suffix, build a manifest from it, and return that as rows."""

    def built(suffix: str, content: str | bytes, **options: Any) -> Rows:
        source = tmp_path / f"table.{suffix}"
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        built_manifest = build_shards(source, tmp_path / "out", **options)
        rows: Rows = [row for file in built_manifest.files for row in pq.read_table(file).to_pylist()]
        assert built_manifest.num_rows == len(rows)
        return rows

    return built


def _jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _problems(build: Build, suffix: str, content: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        build(suffix, content, **options)
    return [str(problem) for problem in caught.value.problems]


# --- formats --------------------------------------------------------------------------------------------------------


def test_a_csv_s_cells_become_the_columns_types(build: Build) -> None:
    content = 'id,prompt,height,strength,images,keyframes,seed,x_sku\n7,"a, ""b""",64,0.7,beach.png,"[0, 8]",5,0012\n'
    assert build("csv", content) == [
        {
            "id": "7",
            "prompt": 'a, "b"',
            "height": 64,
            "strength": 0.7,
            "images": ["beach.png"],
            "keyframes": [0, 8],
            "seed": 5,
            "x_sku": "0012",
        }
    ]


def test_a_csv_s_empty_cell_is_null(build: Build) -> None:
    rows = build("csv", "id,prompt,height\na,,\nb,p,64\n")
    assert rows == [{"id": "a", "prompt": None, "height": None}, {"id": "b", "prompt": "p", "height": 64}]


def test_a_csv_may_begin_with_a_byte_order_mark(build: Build) -> None:
    assert build("csv", "\ufeffid,prompt\na,p\n") == [{"id": "a", "prompt": "p"}]


def test_a_csv_s_prompt_may_hold_lines(build: Build) -> None:
    assert build("csv", 'id,prompt\na,"one\ntwo"\n') == [{"id": "a", "prompt": "one\ntwo"}]


def test_a_tsv_quotes_nothing(build: Build) -> None:
    rows = build("tsv", 'id\tprompt\na\t"a sign, "OPEN"\nb\tit\'s "x"\n')
    assert rows == [{"id": "a", "prompt": '"a sign, "OPEN"'}, {"id": "b", "prompt": 'it\'s "x"'}]


def test_jsonl_keeps_its_types_and_skips_empty_lines(build: Build) -> None:
    loras = [{"name": "ink", "weight": 0.5}]
    content = "\n" + _jsonl({"id": "a", "images": ["x", "y"], "loras": loras, "height": 64.0, "x_n": 3}) + "\n \n"
    assert build("jsonl", content) == [{"id": "a", "images": ["x", "y"], "loras": loras, "height": 64, "x_n": 3}]


def test_jsonl_s_absent_keys_are_null(build: Build) -> None:
    rows = build("jsonl", _jsonl({"id": "a", "seed": 1}, {"id": "b", "prompt": "p"}))
    assert rows == [{"id": "a", "seed": 1, "prompt": None}, {"id": "b", "seed": None, "prompt": "p"}]


def test_jsonl_s_parameters_may_be_an_object(build: Build) -> None:
    (row,) = build("jsonl", _jsonl({"id": "a", "parameters": {"eta": 0.5}}))
    assert json.loads(row["parameters"]) == {"eta": 0.5}


def test_parquet_is_taken(build: Build, tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "text": ["p"]}), tmp_path / "in.parquet")
    data = (tmp_path / "in.parquet").read_bytes()
    assert build("parquet", data, rename={"name": "id", "text": "prompt"}) == [{"id": "a", "prompt": "p"}]


def test_columns_get_the_manifest_s_types(build: Build, tmp_path: Path) -> None:
    build("jsonl", _jsonl({"id": "a", "height": 64, "seed": 1, "strength": 1, "images": "x", "prompt": None}))
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert {field.name: field.type for field in schema} == {name: COLUMNS[name] for name in schema.names}


# --- ids, names -----------------------------------------------------------------------------------------------------


def test_ids_are_made_from_row_numbers(build: Build) -> None:
    rows = build("tsv", "prompt\nx\ny\n", id_format="scene-{row:05d}")
    assert [row["id"] for row in rows] == ["scene-00000", "scene-00001"]


def test_ids_that_are_there_stay(build: Build) -> None:
    assert build("csv", "id,prompt\nmine,x\n", id_format="scene-{row}")[0]["id"] == "mine"


def test_columns_are_renamed_and_dropped(build: Build) -> None:
    content = "Prompt,Category,Note\nx,y,z\n"
    rows = build(
        "csv", content, rename={"Prompt": "prompt", "Category": "x_category"}, drop=["Note"], id_format="{row}"
    )
    assert rows == [{"prompt": "x", "x_category": "y", "id": "0"}]


def test_every_unknown_column_is_refused_by_name(build: Build) -> None:
    problems = _problems(build, "csv", "id,Promt,Note\na,x,y\n")
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        f"{name} is not a column of a manifest{near}; rename it, drop it, or let it start with x_"
        for name, near in (("Promt", "; did you mean prompt?"), ("Note", ""))
    ]


def test_prompts_are_brought_to_normal_form(build: Build) -> None:
    rows = build("jsonl", _jsonl({"id": "a", "prompt": "cafe\u0301", "negative_prompt": "u\u0308", "x_raw": "e\u0301"}))
    assert rows == [{"id": "a", "prompt": "caf\u00e9", "negative_prompt": "\u00fc", "x_raw": "e\u0301"}]


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("height", "tall", "is not a whole number"),
        ("height", 64.5, "is not a whole number"),
        ("height", True, "is not a whole number"),
        ("height", "64.0px", "is not a whole number"),
        ("height", "1_024", "is not a whole number"),
        ("height", [64], "is not a whole number"),
        ("height", "1e9999", "is not a whole number"),
        ("strength", "much", "is not a number"),
        ("strength", "0,7", "is not a number; decimals are written with a point"),
        ("strength", False, "is not a number"),
        ("seed", {}, "is not a whole number"),
        ("images", 3, "is not a list"),
        ("images", "[a.png, b.png]", 'is not a JSON list, as in ["a.png", "b.png"]'),
        ("images", "['a.png']", 'is not a JSON list, as in ["a.png", "b.png"]'),
        ("images", ["a.png", None], "holds null; its items are text"),
        ("keyframes", [0, "x"], "is not a whole number"),
        ("keyframes", [0, None], "holds null; its items are numbers of frames"),
        ("keyframes", "[0, ", "is not a whole number"),
        ("loras", [None], "holds null; its items have a name and a weight"),
        ("loras", [{"name": "ink", "wieght": 1}], "holds an item with 'wieght'; its items have a name and a weight"),
        ("mask", ["a.png"], "is a list; this column takes text alone"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_row_and_column(
    build: Build, column: str, value: Any, message: str
) -> None:
    content = _jsonl({"id": "a", column: None}, {"id": "b", column: value})
    (problem,) = _problems(build, "jsonl", content)
    assert problem.startswith("line 2 of ")
    assert f"table.jsonl (b): {column} {value!r} " in problem
    assert problem.endswith(message)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("height", 3_000_000_000),
        ("height", float("inf")),
        ("seed", 2**63),
        ("keyframes", [2**31]),
        ("guidance_scale", 10**400),
        ("guidance_scale", float("inf")),
        ("parameters", [1]),
        ("seed", -1),
        ("seed", 2.0**53),
        ("images", [1]),
        ("loras", [{"name": "ink", "weight": "heavy"}]),
        ("loras", ["ink"]),
        ("prompt", "\ud800"),
    ],
)
def test_a_value_its_column_cannot_hold_names_its_row_and_column(build: Build, column: str, value: Any) -> None:
    content = _jsonl({"id": "a", column: None}, {"id": "b", column: value})
    (problem,) = _problems(build, "jsonl", content)
    assert problem.startswith("line 2 of ")
    assert f"table.jsonl (b): {column} " in problem


def test_a_column_of_the_user_s_with_two_types_is_refused(build: Build) -> None:
    (problem,) = _problems(build, "jsonl", _jsonl({"id": "a", "x_rank": 1}, {"id": "b", "x_rank": "first"}))
    assert "x_rank" in problem


def test_every_wrong_value_is_told(build: Build) -> None:
    problems = _problems(build, "csv", "id,height,seed\na,x,y\nb,1,2\nc,z,3\n")
    assert [problem.split(" of ")[0] for problem in problems] == ["line 2", "line 2", "line 4"]


@pytest.mark.parametrize(
    ("content", "message"), [('{"id": "a"}\n{"id"\n', "line 2 of "), ('{"id": "a"}\n[1]\n', "is not a JSON object")]
)
def test_a_line_that_is_no_json_object_is_refused(build: Build, content: str, message: str) -> None:
    (problem,) = _problems(build, "jsonl", content)
    assert message in problem


def test_a_file_of_another_kind_is_refused(build: Build) -> None:
    (problem,) = _problems(build, "ods", b"PK")
    assert "has the suffix '.ods'; taken are .csv, .tsv, .txt, .xlsx, .jsonl and .parquet; save it as .xlsx" in problem


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("xlsx", b"PK\x03\x04 is no zip"),
        ("jsonl", '{"id": "a", "prompt": "caf\u00e9"}'.encode("latin-1")),
        ("csv", b"id,prompt\na," + b"x" * 200_000 + b"\n"),
        ("parquet", b"id,prompt"),
    ],
    ids=["no workbook", "latin-1 jsonl", "endless cell", "no parquet"],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(build: Build, suffix: str, content: bytes) -> None:
    with pytest.raises(UserError, match=rf"table\.{suffix}"):
        build(suffix, content)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv"):
        build_shards(tmp_path / "none.csv", tmp_path / "out")


def test_two_columns_that_become_one_are_refused(build: Build) -> None:
    (problem,) = _problems(build, "csv", "id,prompt,text\na,x,y\n", rename={"text": "prompt"})
    assert "prompt" in problem


def test_nothing_is_written_when_something_is_wrong(build: Build, tmp_path: Path) -> None:
    _problems(build, "csv", "id,height\na,x\n")
    assert not (tmp_path / "out").exists()


# --- shards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "shards", "sizes"), [(10, 1, [10]), (10, 3, [3, 3, 4]), (8, 4, [2] * 4), (1, 2, [0, 1])]
)
def test_rows_are_split_evenly_and_in_order(tmp_path: Path, rows: int, shards: int, sizes: list[int]) -> None:
    ids = [f"row-{number}" for number in range(rows)]
    (tmp_path / "table.csv").write_text("id\n" + "\n".join(ids))
    files = build_shards(tmp_path / "table.csv", tmp_path / "out", shards=shards).files
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(shards)]
    parts = [pq.read_table(file).column("id").to_pylist() for file in files]
    assert [len(part) for part in parts] == sizes
    assert [value for part in parts for value in part] == ids


def test_shards_of_an_earlier_build_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id\na\nb\nc\n")
    out = tmp_path / "out"
    build_shards(tmp_path / "table.csv", out, shards=3)
    (out / "notes.txt").write_text("mine")
    build_shards(tmp_path / "table.csv", out, shards=2)
    assert sorted(file.name for file in out.iterdir()) == ["notes.txt", "part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,prompt\na,a beach, at sunset\n", "line 2 of .*has 3 cells, the header 2; quote commas"),
        ("id,prompt\na\n", "line 2 of .*has 1 cell, the header 2"),
        ('id,prompt\na,"a beach\nb,forest\n', "cannot be read: unexpected end of data"),
        ("id,id,prompt\na,b,x\n", "id appears twice in the header"),
    ],
)
def test_a_table_that_would_lose_cells_is_refused(tmp_path: Path, text: str, said: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(text)

    with pytest.raises(ManifestError, match=said):
        build_shards(source, tmp_path / "m")


def test_a_whole_number_written_as_a_float_is_an_integer(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("id,prompt,height\na,p,64.0\n")
    files = build_shards(source, tmp_path / "m").files

    assert pq.read_table(files[0]).column("height").to_pylist() == [64]


def test_a_column_that_is_not_there_cannot_be_renamed(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("id,prompt\na,p\n")

    with pytest.raises(ManifestError, match="nope is to be renamed or dropped"):
        build_shards(source, tmp_path / "m", rename={"nope": "prompt"})

"""Which columns a manifest may have, and of which types."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sdbatch.manifest.schema import COLUMNS, COLUMNS_MAX, check_schema, own_fields


def _problems(**columns: pa.DataType) -> list[str]:
    """Return what is wrong with `id` and these columns."""
    schema = pa.schema([("id", pa.string()), *columns.items()])
    return [str(problem) for problem in check_schema(schema, "a.parquet")]


LORAS = pa.list_(pa.struct([("weight", pa.float32()), ("name", pa.large_string())]))


def test_every_type_that_build_writes_is_taken() -> None:
    assert check_schema(pa.schema(list(COLUMNS.items())), "a.parquet") == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prompt", pa.large_string()),
        ("prompt", pa.dictionary(pa.int32(), pa.string())),
        ("prompt", pa.dictionary(pa.int8(), pa.large_string())),
        ("prompt", pa.null()),
        ("height", pa.int64()),
        ("height", pa.uint8()),
        ("seed", pa.int32()),
        ("seed", pa.uint64()),
        ("seed", pa.float64()),
        ("height", pa.float64()),
        ("height", pa.decimal128(9, 0)),
        ("strength", pa.decimal128(3, 2)),
        ("prompt", pa.string_view()),
        ("prompt", pa.float64()),
        ("images", pa.list_(pa.string_view())),
        ("images", pa.list_(pa.string(), 2)),
        ("images", pa.float64()),
        ("keyframes", pa.list_(pa.float64())),
        ("parameters", pa.json_()),
        ("strength", pa.float32()),
        ("strength", pa.float16()),
        ("guidance_scale", pa.int64()),
        ("images", pa.string()),
        ("images", pa.large_string()),
        ("images", pa.list_(pa.large_string())),
        ("images", pa.large_list(pa.string())),
        ("keyframes", pa.list_(pa.int64())),
        ("loras", LORAS),
        ("x_price", pa.decimal128(9, 2)),
        ("x_day", pa.date32()),
        ("x_seen", pa.timestamp("us", tz="UTC")),
        ("x_sku", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_a_type_that_holds_the_value_is_taken(name: str, kind: pa.DataType) -> None:
    assert _problems(**{name: kind}) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prompt", pa.int64()),
        ("prompt", pa.binary()),
        ("prompt", pa.list_(pa.string())),
        ("height", pa.string()),
        ("height", pa.bool_()),
        ("strength", pa.string()),
        ("strength", pa.duration("s")),
        ("seed", pa.timestamp("us")),
        ("images", pa.list_(pa.int32())),
        ("images", pa.int32()),
        ("keyframes", pa.string()),
        ("keyframes", pa.list_(pa.list_(pa.int32()))),
        ("loras", pa.list_(pa.string())),
        ("loras", pa.list_(pa.struct([("name", pa.string())]))),
        ("loras", pa.list_(pa.struct([("name", pa.string()), ("weight", pa.string())]))),
    ],
)
def test_a_type_that_cannot_hold_the_value_is_refused(name: str, kind: pa.DataType) -> None:
    assert _problems(**{name: kind}) == [f"a.parquet: {name} {kind} is not of type {COLUMNS[name]}"]


def test_an_unknown_column_names_the_nearest_known_one() -> None:
    assert _problems(promt=pa.string()) == [
        "a.parquet: promt is not a known column; did you mean prompt? (your own start with x_)"
    ]


def test_an_unknown_column_like_no_other_gets_no_suggestion() -> None:
    assert _problems(zzzz=pa.string()) == ["a.parquet: zzzz is not a known column (your own start with x_)"]


def test_the_index_of_a_pandas_table_is_told_by_its_name() -> None:
    assert _problems(__index_level_0__=pa.int64()) == [
        "a.parquet: __index_level_0__ is the index of a pandas table; write it with to_parquet(..., index=False)"
    ]


def test_a_value_that_another_program_alone_can_read_is_refused() -> None:
    period = pa.field("x_month", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"})
    problems = check_schema(pa.schema([("id", pa.string()), period]), "a.parquet")

    assert [str(problem) for problem in problems] == [
        "a.parquet: x_month int64 means pandas.period, which is not read here; write it as text"
    ]


def test_a_shard_without_ids_is_refused() -> None:
    problems = check_schema(pa.schema([("prompt", pa.string())]), "a.parquet")
    assert [str(problem) for problem in problems] == ["a.parquet: id is missing; every row needs one"]


def test_a_column_that_stands_twice_is_refused_once() -> None:
    schema = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("prompt", pa.string())])
    assert [str(problem) for problem in check_schema(schema, "a.parquet")] == ["a.parquet: prompt appears twice"]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.struct([("a", pa.int32())])])
def test_a_nested_column_of_the_user_is_refused(kind: pa.DataType) -> None:
    assert _problems(x_tags=kind) == [f"a.parquet: x_tags {kind} is nested; x_ columns are flat"]


@pytest.mark.parametrize(("count", "faults"), [(COLUMNS_MAX, 0), (COLUMNS_MAX + 1, 1)])
def test_more_columns_than_the_cap_are_refused(count: int, faults: int) -> None:
    problems = _problems(**{f"x_{number}": pa.string() for number in range(count - 1)})
    assert len(problems) == faults
    assert all(f"{count} columns are over {COLUMNS_MAX}" in problem for problem in problems)


def test_everything_wrong_with_a_shard_is_told() -> None:
    schema = pa.schema([("promt", pa.string()), ("height", pa.string()), ("x_tags", pa.list_(pa.string()))])
    assert {problem.column for problem in check_schema(schema, "a.parquet")} == {"id", "promt", "height", "x_tags"}


def test_the_user_s_columns_get_plain_types() -> None:
    schema = pa.schema(
        [("id", pa.string()), ("x_sku", pa.dictionary(pa.int32(), pa.string())), ("x_price", pa.float32())]
    )
    assert own_fields(schema) == {"x_sku": pa.string(), "x_price": pa.float32()}

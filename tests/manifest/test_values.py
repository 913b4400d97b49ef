"""What a column takes: text where text is meant, whole numbers that are exact, and the same value on every path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbatch.errors import ManifestError
from sdbatch.manifest.build import build_shards
from sdbatch.manifest.column_values import column_values
from sdbatch.manifest.read import list_shards, read_batches
from sdbatch.manifest.schema import COLUMNS
from sdbatch.manifest.values import ValueRefused, read_value

fault = pytest.mark.fault
Read = Callable[[pa.Table], tuple[dict[str, list[Any]], list[str]]]


def _direct(table: pa.Table, folder: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the columns of a Parquet manifest that is used as it is, and its problems from the id on."""
    pq.write_table(table, folder / "a.parquet")
    (shard,) = list_shards(str(folder / "a.parquet"), {})
    (batch,) = read_batches(shard)
    problems = [str(problem) for problem in (*shard.problems, *batch.problems)]
    return {**batch.columns, **batch.own.to_pydict()}, [text.split(".parquet", 1)[1] for text in problems]


def _built(table: pa.Table, folder: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the columns of a manifest that was built from a Parquet file, or the problems of building it."""
    pq.write_table(table, folder / "table.parquet")
    try:
        built = build_shards(folder / "table.parquet", folder / "built")
    except ManifestError as error:
        return {}, [str(problem).split(".parquet", 1)[1] for problem in error.problems]
    return pq.read_table(built.files[0]).to_pydict(), []


@pytest.fixture(params=[_direct, _built], ids=["as it is", "built"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Read:
    """Both ways of a Parquet file into a manifest."""
    return lambda table: request.param(table, tmp_path)


def _table(**columns: Any) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({"id": [f"row-{number}" for number in range(rows)], **columns})


# --- what is read ---------------------------------------------------------------------------------------------------

NAN = float("nan")
READ = {
    "NaN in a text column": (
        fault("F7", "a text column of NaN alone", "null"),
        "prompt",
        [NAN, None],
        pa.float64(),
        [None, None],
    ),
    "NaN in a list column": (
        fault("F7", "a column of lists that is NaN alone", "null"),
        "images",
        [NAN],
        pa.float32(),
        [None],
    ),
    "NaN as a number": (
        fault("F7", "NaN in a column of numbers", "null"),
        "strength",
        [NAN, 0.5],
        pa.float64(),
        [None, 0.5],
    ),
    "whole floats": (
        fault("F9", "whole numbers among nulls, which pandas writes as floats", "whole numbers"),
        "height",
        [64.0, NAN],
        pa.float64(),
        [64, None],
    ),
    "an exact seed": (
        fault("F9", "a seed of 2^53 - 1 as a float", "9007199254740991"),
        "seed",
        [2.0**53 - 1],
        pa.float64(),
        [2**53 - 1],
    ),
    "a seed of 63 bits": (
        fault("F9", "a seed of 2^63 - 1 in a column of uint64", "as it is"),
        "seed",
        [2**63 - 1],
        pa.uint64(),
        [2**63 - 1],
    ),
    "float32": (fault("F10", "float32 7.3", "7.3"), "guidance_scale", [7.3, None], pa.float32(), [7.3, None]),
    "float16": (fault("F10", "float16 0.7", "0.7"), "strength", [np.float16(0.7)], pa.float16(), [0.7]),
    "a decimal": (fault("F27", "a decimal, as DuckDB has 0.7", "0.7"), "strength", ["0.7"], pa.decimal128(3, 1), [0.7]),
    "a whole decimal": (fault("F27", "a whole decimal", "64"), "height", ["64.00"], pa.decimal128(9, 2), [64]),
    "int8": (fault("F27", "int8", "as it is"), "num_outputs", [2, None], pa.int8(), [2, None]),
    "an int as a float": (
        fault("F27", "whole numbers in a column of floats", "floats"),
        "guidance_scale",
        [7],
        pa.uint8(),
        [7.0],
    ),
    "CRLF": (fault("F25", "CRLF in a cell", "LF"), "prompt", ["one\r\ntwo"], pa.string(), ["one\ntwo"]),
    "CRLF in a dictionary": (
        fault("F25", "CRLF in a dictionary", "LF"),
        "prompt",
        ["one\r\ntwo"],
        pa.dictionary(pa.int8(), pa.string()),
        ["one\ntwo"],
    ),
    "NFD": (
        fault("F25", "a prompt in NFD", "NFC"),
        "negative_prompt",
        ["cafe\u0301"],
        pa.large_string(),
        ["caf\u00e9"],
    ),
    "string_view": (fault("F27", "string_view", "text"), "prompt", ["p", None], pa.string_view(), ["p", None]),
    "a list of views": (
        fault("F27", "a list of string_view", "texts"),
        "images",
        [["a", "b"], None],
        pa.list_(pa.string_view()),
        [["a", "b"], None],
    ),
    "a list view": (
        fault("F27", "a list view", "texts"),
        "images",
        [["a", "b"], None],
        pa.list_view(pa.string()),
        [["a", "b"], None],
    ),
    "a list of one length": (
        fault("F27", "a list of fixed size", "texts"),
        "images",
        [["a", "b"]],
        pa.list_(pa.string(), 2),
        [["a", "b"]],
    ),
    "a list of floats": (
        fault("F27", "frames as floats", "whole numbers"),
        "keyframes",
        [[0.0, 8.0]],
        pa.list_(pa.float64()),
        [[0, 8]],
    ),
    "a JSON list in text": (
        fault("F27", "a JSON list in a column of text", "a list"),
        "images",
        ['["a", "b"]'],
        pa.string(),
        [["a", "b"]],
    ),
    "a weight of float32": (
        fault("F10", "a LoRA's weight as float32", "0.7"),
        "loras",
        [[{"name": "ink", "weight": 0.7}]],
        pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float32())])),
        [[{"name": "ink", "weight": 0.7}]],
    ),
    "parameters as JSON": (
        fault("F27", "a column of JSON's own type", "text"),
        "parameters",
        ["{}"],
        pa.json_(),
        ["{}"],
    ),
    "ns that are exact": (
        fault("S9", "nanoseconds that are whole microseconds", "microseconds"),
        "x_t",
        [3000],
        pa.timestamp("ns"),
        None,
    ),
    "date64": (fault("S9", "a date in milliseconds", "a date"), "x_t", [86_400_000], pa.date64(), None),
    "float16 of one's own": (
        fault("S9", "a float16 of one's own", "its value"),
        "x_n",
        [np.float16(1.5)],
        pa.float16(),
        [1.5],
    ),
    "uint64 of one's own": (
        fault("S9", "2^64 - 1 of one's own", "its value"),
        "x_n",
        [2**64 - 1],
        pa.uint64(),
        [2**64 - 1],
    ),
}


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array(values).cast(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    if pa.types.is_string_view(kind) or not pa.types.is_list(kind) or not pa.types.is_string_view(kind.value_type):
        return pa.array(values, kind)
    return pa.array(values, pa.list_(pa.string())).cast(kind)


@pytest.mark.parametrize(
    ("column", "values", "kind", "expected"),
    [pytest.param(*row[1:], marks=row[0], id=name) for name, row in READ.items()],
)
def test_a_value_is_read_as_it_was_meant(
    read: Read, column: str, values: list[Any], kind: pa.DataType, expected: list[Any] | None
) -> None:
    array = _array(values, kind)
    columns, problems = read(_table(**{column: array}))

    assert problems == []
    found = columns[column]
    if expected is None:
        expected = pa.array(array).cast(pa.date32() if pa.types.is_date(kind) else pa.timestamp("us")).to_pylist()
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


# --- what is refused ------------------------------------------------------------------------------------------------

FLOAT = "is a float of 2^53 or more, which is not exact; write it as an integer or as text"
LATER = "leave it empty where any seed will do: it is then derived from the row's id and stays the same"
SMALLER = "programs that draw seeds of 64 bits, as ComfyUI does, give twice as many; take a smaller one"
NO_TYPE = "is of a type that x_ columns do not have; they hold text, numbers, booleans, dates or timestamps"
REFUSED = {
    "a number as text": (
        fault("F7", "a number where text is meant", "refused by row"),
        "prompt",
        [NAN, 1.5],
        pa.float64(),
        " (row-1): prompt 1.5 is a number; this column takes text alone",
    ),
    "a float seed": (
        fault("F9", "9007199254740993 as a float", "refused: not exact"),
        "seed",
        [9007199254740993.0],
        pa.float64(),
        f" (row-0): seed 9007199254740992.0 {FLOAT}",
    ),
    "seed -1": (
        fault("F9", "seed -1", "refused, with what to write"),
        "seed",
        [-1],
        pa.int64(),
        f" (row-0): seed -1 is not in 0..{2**63 - 1}; {LATER}",
    ),
    "seed 2^64 - 1": (
        fault("F9", "seed 2^64 - 1, ComfyUI's largest", "refused, with what to write"),
        "seed",
        [2**64 - 1],
        pa.uint64(),
        f" (row-0): seed {2**64 - 1} is not in 0..{2**63 - 1}; {SMALLER}",
    ),
    "half a pixel": (
        fault("F27", "64.5 as a height", "refused by row"),
        "height",
        [64.0, 64.5],
        pa.float64(),
        " (row-1): height 64.5 is not a whole number",
    ),
    "a wide integer": (
        fault("F27", "a number over int32", "refused by row"),
        "num_outputs",
        [2**40],
        pa.int64(),
        f" (row-0): num_outputs {2**40} is not in {-(2**31)}..{2**31 - 1}",
    ),
    "infinity": (
        fault("F27", "infinity", "refused by row"),
        "strength",
        [float("inf")],
        pa.float64(),
        " (row-0): strength inf is not a finite number",
    ),
    "null among images": (
        fault("S11", "null in a list", "refused by row"),
        "images",
        [["a", None]],
        pa.list_(pa.string()),
        " (row-0): images ['a', None] holds null; its items are text",
    ),
    "null among frames": (
        fault("S11", "keyframes [null]", "refused by row"),
        "keyframes",
        [[None]],
        pa.list_(pa.int32()),
        " (row-0): keyframes [None] holds null; its items are numbers of frames",
    ),
    "null among LoRAs": (
        fault("S11", "loras [null]", "refused by row"),
        "loras",
        [[None]],
        COLUMNS["loras"],
        " (row-0): loras [None] holds null; its items have a name and a weight",
    ),
    "nanoseconds": (
        fault("S9", "a nanosecond", "refused by row: not exact"),
        "x_t",
        [1],
        pa.timestamp("ns"),
        " (row-0): x_t 1 nanoseconds since 1970 are not whole microseconds",
    ),
    "the year 10000": (
        fault("S9", "a date in the year 10000", "refused by row"),
        "x_t",
        [2_932_897],
        pa.date32(),
        " (row-0): x_t 2932897 as date32[day] is outside of the years 1 to 9999",
    ),
    "the year 0": (
        fault("S9", "a date in the year 0", "refused by row"),
        "x_t",
        [-719_163],
        pa.date32(),
        " (row-0): x_t -719163 as date32[day] is outside of the years 1 to 9999",
    ),
    "a far timestamp": (
        fault("S9", "a timestamp in the year 31969", "refused by row"),
        "x_t",
        [946_684_800_000_000_000],
        pa.timestamp("us"),
        " (row-0): x_t 946684800000000000 as timestamp[us] is outside of the years 1 to 9999",
    ),
    "far seconds": (
        fault("S9", "seconds that overflow microseconds", "refused by row"),
        "x_t",
        [2**62],
        pa.timestamp("ms"),
        f" (row-0): x_t {2**62} as timestamp[ms] is outside of the years 1 to 9999",
    ),
    "an unknown time zone": (
        fault("S9", "an unknown time zone", "refused by name"),
        "x_t",
        [1],
        pa.timestamp("us", "Mars/Olympus"),
        ": x_t timestamp[us, tz=Mars/Olympus] is of a time zone that is not known here",
    ),
    "a duration": (
        fault("S9", "duration[ns]", "refused by name"),
        "x_t",
        [1],
        pa.duration("ns"),
        f": x_t duration[ns] {NO_TYPE}",
    ),
    "a time of day": (
        fault("S9", "a time of day", "refused by name"),
        "x_t",
        [1],
        pa.time64("us"),
        f": x_t time64[us] {NO_TYPE}",
    ),
    "binary": (fault("S9", "binary", "refused by name"), "x_t", [b"a"], pa.binary(), f": x_t binary {NO_TYPE}"),
}


@pytest.mark.parametrize(
    ("column", "values", "kind", "message"),
    [pytest.param(*row[1:], marks=row[0], id=name) for name, row in REFUSED.items()],
)
def test_a_value_that_does_not_fit_is_refused_by_its_row(
    read: Read, column: str, values: list[Any], kind: pa.DataType, message: str
) -> None:
    _, problems = read(_table(**{column: pa.array(values, kind)}))

    assert problems == [message]


@fault("S9", "the last moments of the year 9999, east of Greenwich", "refused: no calendar has them there")
def test_a_moment_that_its_time_zone_does_not_have_is_refused(read: Read) -> None:
    last = 253_402_300_799_000_000  # 9999-12-31T23:59:59Z
    with pytest.raises(OverflowError):
        pa.scalar(last, pa.timestamp("us", "Asia/Tokyo")).as_py()
    columns, problems = read(_table(x_t=pa.array([last], pa.timestamp("us", "Asia/Tokyo"))))
    assert len(problems) == 1
    assert "is outside of the years 1 to 9999" in problems[0]
    columns, problems = read(_table(x_t=pa.array([last], pa.timestamp("us"))))
    assert problems == []
    assert columns["x_t"][0].year == 9999


@fault("F8", "a column that stands twice in a Parquet file", "refused, as check does")
def test_a_column_that_stands_twice_is_refused_on_every_path(read: Read) -> None:
    doubled = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["p"]), pa.array(["q"])], names=["id", "prompt", "prompt"]
    )
    _, problems = read(doubled)
    assert problems == [": prompt appears twice"]


@fault("F8", "a key that stands twice in a JSON object, a field in a struct", "refused")
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "prompt": "p", "prompt": "q"}\n')
    with pytest.raises(ManifestError, match="the key 'prompt' stands twice in one object"):
        build_shards(tmp_path / "a.jsonl", tmp_path / "out")

    names = pa.StructArray.from_arrays(
        [pa.array(["a"]), pa.array([1.0]), pa.array([2.0])], ["name", "weight", "weight"]
    )
    _, problems = read(_table(loras=pa.ListArray.from_arrays([0, 1], names)))
    (problem,) = problems
    assert problem.startswith(": loras list<element: struct<name: string, weight: double, weight: double>> is not of")


# --- text tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param(["x", "y"], "a list", marks=fault("F7", "a list as a prompt", "refused by row")),
        pytest.param({"a": 1}, "an object", marks=fault("F7", "an object as a prompt", "refused by row")),
        pytest.param(True, "a boolean", marks=fault("F7", "a boolean as a prompt", "refused by row")),
        pytest.param(12, "a number", marks=fault("F7", "a number as a prompt", "refused by row")),
    ],
)
@pytest.mark.parametrize("column", ["prompt", "negative_prompt", "task", "mask", "seed_group", "scheduler"])
def test_a_text_column_takes_text_alone(column: str, value: Any, words: str) -> None:
    with pytest.raises(ValueRefused, match=f"is {words}; this column takes text alone"):
        read_value(column, value)


@fault("F7", "NaN in JSONL", "null")
@fault("F7", "a number as an id in JSONL", "refused by row and line")
def test_json_that_pandas_wrote_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"id": "a", "prompt": NaN, "negative_prompt": NaN, "x_n": NaN}\n', encoding="utf-8")
    built = build_shards(path, tmp_path / "out")
    assert pq.read_table(built.files[0]).to_pylist() == [
        {"id": "a", "prompt": None, "negative_prompt": None, "x_n": None}
    ]

    path.write_text('\n{"id": 3, "prompt": "p"}\n{"id": "b", "prompt": [1]}\n')
    with pytest.raises(ManifestError) as caught:
        build_shards(path, tmp_path / "out")
    assert [str(problem) for problem in caught.value.problems] == [
        f"line 2 of {path}: id 3 is a number; this column takes text alone",
        f"line 3 of {path} (b): prompt [1] is a list; this column takes text alone",
    ]


def test_numbers_in_a_csv_are_text_where_text_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prompt,x_n,seed\n007,12,0012,9007199254740993\n")
    built = build_shards(tmp_path / "a.csv", tmp_path / "out")
    (row,) = pq.read_table(built.files[0]).to_pylist()
    assert row == {"id": "007", "prompt": "12", "x_n": "0012", "seed": 9007199254740993}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("64.0", 64),
        ("1e2", 100),
        (" 64 ", 64),
        ("9007199254740993.0", ValueRefused),  # of height's own width
        ("6_4", ValueRefused),
        ("\u0666\u0664", ValueRefused),
        ("1e9999", ValueRefused),
        ("0x40", ValueRefused),
        ("", ValueRefused),
        ("nan", None),
        ("1024.000", 1024),
        ("1.000", ValueRefused),  # a thousand, where people write it so
        ("512.000", ValueRefused),
        ("1e9", 10**9),
    ],
)
def test_a_number_in_text_is_read_exactly_or_refused(value: str, expected: Any) -> None:
    if expected is ValueRefused:
        with pytest.raises(ValueRefused):
            read_value("height", value)
    else:
        assert read_value("height", value) == expected


def test_a_seed_in_text_keeps_every_digit() -> None:
    assert read_value("seed", "9007199254740993.0") == 9007199254740993
    assert read_value("seed", str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(ValueRefused, match="as spreadsheets shorten long numbers; write all of its digits"):
        read_value("seed", "1.23457E+11")  # what Excel saves of 123456789012


@fault("F27", "a CSV cell `[draft] p.png` in images", "one picture name")
@pytest.mark.parametrize("name", ["[draft] p.png", "[1].png", "a [b].png", "'[x]'", '"quoted".png'])
def test_a_name_with_brackets_is_one_name(name: str) -> None:
    assert read_value("images", name) == [name]


@fault("S11", "half of a surrogate pair in any column", "refused by row")
@pytest.mark.parametrize("column", ["id", "prompt", "mask", "x_note", "parameters"])
def test_half_a_surrogate_pair_is_its_row_s_problem(tmp_path: Path, column: str) -> None:
    rows = [{"id": "good", column: "fine"} if column != "id" else {"id": "good"}, {"id": "bad", column: "\ud800"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / "a.jsonl", tmp_path / "out")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, column)
    assert "holds half of a surrogate pair" in str(problem).encode().decode()


@fault("S9", "x_ values of several kinds in JSONL", "each refused by its line")
def test_values_of_one_s_own_are_of_one_kind(tmp_path: Path) -> None:
    values = [1, 2.5, "three", True, [4], {"five": 5}, 2**64, None, 6]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"id": f"r{number}", "x_n": value}) + "\n" for number, value in enumerate(values))
    )
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / "a.jsonl", tmp_path / "out")
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (3, "is text, and a number on line 1; a column has values of one kind"),
        (4, "is a boolean, and a number on line 1; a column has values of one kind"),
        (5, "is a list; x_ columns hold text, numbers or booleans"),
        (6, "is an object; x_ columns hold text, numbers or booleans"),
        (7, f"is not in {-(2**63)}..{2**63 - 1}"),
    ]


@pytest.mark.parametrize("values", [[2**60, 0.5], [0.5, 2**60]])
def test_whole_numbers_that_would_lose_digits_are_refused(tmp_path: Path, values: list[Any]) -> None:
    lines = [json.dumps({"id": f"r{number}", "x_n": value}) + "\n" for number, value in enumerate(values)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    with pytest.raises(ManifestError, match=f"line 2 of .* with fractions and with {2**60}"):
        build_shards(tmp_path / "a.jsonl", tmp_path / "out")


def test_whole_numbers_become_numbers_when_a_later_row_has_a_fraction(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("w") as file:
        for number in range(5000):
            value = 0.5 if number == 4999 else number
            file.write(
                json.dumps({"id": f"r{number}", "x_n": value, **({"x_late": 1} if number > 4500 else {})}) + "\n"
            )
    built = build_shards(tmp_path / "a.jsonl", tmp_path / "out", shards=2)
    tables = [pq.read_table(file) for file in built.files]
    assert {table.schema.field("x_n").type for table in tables} == {pa.float64()}
    assert [row for table in tables for row in table.column("x_n").to_pylist()] == [*range(4999), 0.5]
    assert tables[0].column("x_late").to_pylist() == [None] * 2500


# --- one reader -----------------------------------------------------------------------------------------------------

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(max_size=5) | st.sampled_from(["a\r\nb", "cafe\u0301", "[x"]),
    "images": st.sampled_from(["a.png", "[draft] p.png", '["a", "b"]', "[a]", ""]),
    "height": st.integers(-(2**40), 2**40),
    "seed": st.integers(-3, 2**64 - 1),
    "strength": st.floats(width=64),
    "guidance_scale": st.floats(width=32),
}


_TYPES = {"prompt": pa.string(), "images": pa.string(), "height": pa.int64(), "seed": pa.decimal128(20, 0)}


def _read_or_refused(name: str, value: Any) -> tuple[Any, str | None]:
    try:
        return read_value(name, value), None
    except ValueRefused as error:
        return None, str(error)


@given(st.data())
def test_a_column_at_a_glance_is_read_as_value_by_value(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(_VALUES)))
    values = data.draw(st.lists(st.none() | _VALUES[name], min_size=1, max_size=6))
    array = pa.array(values, _TYPES.get(name, pa.float64()))
    if name == "seed" and min([0, *filter(None, values)]) >= 0:
        array = array.cast(pa.uint64())
    for column in (pa.chunked_array([array]), pa.chunked_array([array.dictionary_encode()])):
        found, refused = column_values(name, column)
        for offset, value in enumerate(values):
            expected, message = _read_or_refused(name, value)
            assert refused.get(offset, (None, None))[1] == message
            assert found[offset] == expected or [found[offset]] == expected

"""The same table gives the same request keys, however it is written and whether or not it is built into a manifest."""

from __future__ import annotations

import csv
import datetime as dt
import json
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.checkpoints import LoraInfo, describe
from sdbatch.job import parse_job
from sdbatch.manifest.build import build_shards
from sdbatch.manifest.check import check_text
from sdbatch.manifest.read import list_shards, read_batches
from sdbatch.plan.resolve import Resolver

Rows = list[dict[str, Any]]
STILL, CLIP = "tiny-sd", "tiny-video"
PROMPTS = [
    "a beach at sunset",
    'the word "SALE" in red, on a wall',
    "one line\nand another",
    "caf\u00e9 cr\u00e8me, \u00fcber alles",
    "\u65e5\u672c\u8a9e\u306e\u30d7\u30ed\u30f3\u30d7\u30c8, \u304c",
    "tabs\tand  blanks ",
    "[brackets] and {braces}",
    "12",
]
WHEN = dt.datetime(2026, 11, 26, 20, 57, 1, 250_000, tzinfo=dt.UTC)
FLOATS = ("strength", "guidance_scale")
WHOLE = ("height", "width", "num_inference_steps", "num_frames", "seed", "num_outputs", "x_rank")
COLUMNS = (
    *("id", "task", "model", "prompt", "negative_prompt", "images", "keyframes", "mask", "fit", *WHOLE[:4], *FLOATS),
    *("scheduler", "loras", "parameters", "seed", "seed_group", "num_outputs", "x_sku", "x_rank", "x_seen", "x_new"),
)


def _row(number: int) -> dict[str, Any]:
    """Return a row; each column is empty in some of them."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    is_clip = number % 5 == 4
    row |= {"id": f"row-{number:02d}", "prompt": PROMPTS[number % len(PROMPTS)], "x_sku": f"00{number}"}
    row |= {"task": "text-to-video", "model": CLIP} if is_clip else {"task": "text-to-image", "model": STILL}
    if not is_clip:
        row |= {
            "guidance_scale": [7.3, 4.0, None, 0.1 + 0.2][number % 4],
            "num_inference_steps": [20, None][number % 2],
        }
        row |= {"negative_prompt": ["te\u0301xt, \u00e9", None][number % 2], "height": [64, None][number % 2]}
        row |= {"width": row["height"], "loras": [{"name": "ink", "weight": 0.7}] if number % 3 == 0 else None}
    if number % 7 == 1 and not is_clip:
        row |= {"task": "image-to-image", "images": ["[draft] p.png"], "strength": 0.7}
    if number % 7 == 2 and not is_clip:
        row |= {"task": "inpainting", "images": ["a b.png"], "mask": "mask.png", "strength": 0.9, "fit": "contain"}
    if is_clip:
        row |= {"num_frames": 9 if number % 2 else None}
    if is_clip and number % 3 == 0:
        row |= {"task": "image-to-video", "images": ["one.png", "two.png"], "keyframes": [0, 8], "num_frames": 9}
    row |= {
        "seed": [None, number, 2**53 - 1 - number][number % 3],
        "seed_group": [None, f"sc\u00e8ne-{number}"][number % 2],
    }
    row |= {"num_outputs": [None, 2][number % 2], "x_rank": [number, None][number % 2]}
    row |= {"x_seen": WHEN if number % 3 else None, "x_new": [True, False, None][number % 3]}
    return row


ROWS = [_row(number) for number in range(40)]
KINDS: dict[str, pa.DataType] = {
    **dict.fromkeys(COLUMNS, pa.string()),
    **dict.fromkeys(WHOLE, pa.int64()),
    **dict.fromkeys(FLOATS, pa.float64()),
    "images": pa.list_(pa.string()),
    "keyframes": pa.list_(pa.int64()),
    "loras": pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float64())])),
    "x_seen": pa.timestamp("us", "UTC"),
    "x_new": pa.bool_(),
}


def _table(**kinds: pa.DataType) -> pa.Table:
    types = {**KINDS, **kinds}
    return pa.table({name: pa.array([row[name] for row in ROWS], types[name]) for name in COLUMNS})


def _of_texts(kind: pa.DataType) -> dict[str, pa.DataType]:
    return {name: kind for name, own in KINDS.items() if pa.types.is_string(own)}


def _cells(path: Path, dialect: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect)
        writer.writerow(COLUMNS)
        for row in ROWS:
            writer.writerow([_cell(row[name]).replace("\n", "\r\n") for name in COLUMNS])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return value[0] if len(value) == 1 and isinstance(value[0], str) else json.dumps(value)
    return "" if value is None else value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _json_lines(path: Path) -> None:
    lines = []
    for row in ROWS:
        values = {name: value for name, value in row.items() if name != "x_seen"}
        values |= {"negative_prompt": values["negative_prompt"] or float("nan")}
        values |= {name: float(values[name]) for name in ("height", "seed") if values[name] is not None}
        values |= {"prompt": unicodedata.normalize("NFD", values["prompt"])}
        values |= {"seed_group": values["seed_group"] and unicodedata.normalize("NFD", values["seed_group"])}
        lines.append(json.dumps(values) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _as_pandas(path: Path) -> None:
    """Whole numbers with nulls among them are floats, NaN is null, and a column of nulls alone is one of floats."""
    table = _table(**dict.fromkeys(WHOLE, pa.float64()))
    empty = pa.array([float("nan")] * len(ROWS), pa.float64())
    pq.write_table(table.set_column(table.column_names.index("parameters"), "parameters", empty), path)


def _as_polars(path: Path) -> None:
    texts = pa.list_(pa.string_view())
    kinds = {**_of_texts(pa.string_view()), "images": texts, "keyframes": pa.large_list(pa.int64())}
    pq.write_table(_table(**kinds, strength=pa.float32(), x_seen=pa.timestamp("ns", "UTC")), path)


def _as_older_polars(path: Path) -> None:
    loras = pa.large_list(pa.struct([("name", pa.large_string()), ("weight", pa.float32())]))
    kinds = {**_of_texts(pa.large_string()), "images": pa.large_list(pa.large_string()), "loras": loras}
    pq.write_table(_table(**kinds, x_rank=pa.int8(), seed=pa.uint64(), num_frames=pa.uint16()), path)


def _as_duckdb(path: Path) -> None:
    """Without Arrow's schema in the footer; a number with a point is a decimal."""
    table = _table(height=pa.int32(), width=pa.int16(), num_outputs=pa.float64())
    strengths = pa.array([None if row["strength"] is None else Decimal(str(row["strength"])) for row in ROWS])
    table = table.set_column(table.column_names.index("strength"), "strength", strengths)
    assert pa.types.is_decimal(table.schema.field("strength").type)
    pq.write_table(table, path, store_schema=False, row_group_size=7)


def _as_dictionaries(path: Path) -> None:
    table = _table()
    flat = [name for name in COLUMNS if not pa.types.is_nested(KINDS[name]) and name not in {"x_seen", "x_new"}]
    for name in flat:
        encoded = table.column(name).combine_chunks().dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, encoded)
    prompts = pa.array([row["prompt"].replace("\n", "\r\n") for row in ROWS]).dictionary_encode()
    pq.write_table(table.set_column(table.column_names.index("prompt"), "prompt", prompts), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "excel.csv": lambda path: _cells(path, "excel"),
    "unix.csv": lambda path: _cells(path, "unix"),
    "excel.tsv": lambda path: _cells(path, "excel-tab"),
    "lines.jsonl": _json_lines,
    "pandas.parquet": _as_pandas,
    "polars.parquet": _as_polars,
    "older-polars.parquet": _as_older_polars,
    "duckdb.parquet": _as_duckdb,
    "dictionaries.parquet": _as_dictionaries,
}


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    models = {name: {"path": f"builtin:{name}"} for name in (STILL, CLIP)}
    job = parse_job({"manifest": "m", "output": "o", "models": models, "seed": 3})
    described = {name: describe(name, model, {}) for name, model in job.models.items()}
    lora = LoraInfo(name="ink", base=described[STILL].family.title, revision="0" * 64)
    return Resolver(job, described, lambda _: None, lambda url: url, {"ink": lora}, loads_here=False)


def _keys(resolver: Resolver, columns: dict[str, list[Any]], num_rows: int) -> dict[str, str]:
    urls = ("[draft] p.png", "a b.png", "mask.png", "one.png", "two.png")
    rows, problems = resolver.resolve(columns, num_rows, {url: f"sha256:{url}" for url in urls})
    assert problems == []
    return dict(zip(rows.id, rows.request_key.to_pylist(), strict=True))


def _keys_of(resolver: Resolver, manifest: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    for shard in list_shards(str(manifest), {}):
        assert shard.problems == ()
        for batch in read_batches(shard):
            assert [*batch.problems, *check_text(batch)] == []
            keys |= _keys(resolver, dict(batch.columns), batch.num_rows)
    return keys


@pytest.fixture(scope="module")
def meant(resolver: Resolver) -> dict[str, str]:
    """The keys of the rows as they were meant."""
    columns = {name: [row[name] for row in ROWS] for name in COLUMNS if not name.startswith("x_")}
    for name in ("prompt", "negative_prompt", "seed_group"):
        columns[name] = [text and unicodedata.normalize("NFC", text) for text in columns[name]]
    return _keys(resolver, columns, len(ROWS))


@pytest.mark.fault("F6", "a TSV with quoted cells, as Excel and pandas write it", "the key of the same CSV")
@pytest.mark.fault("F10", "float32 columns", "the key of the number as a person wrote it, on every path")
@pytest.mark.fault("F25", "CRLF inside cells", "the key of the text with LF")
@pytest.mark.fault("F27", "string_view, dictionaries, ns timestamps, `[draft] p.png`", "read as what they stand for")
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_table_gives_the_same_keys_built(
    name: str, tmp_path: Path, resolver: Resolver, meant: dict[str, str]
) -> None:
    WRITERS[name](tmp_path / name)
    built = build_shards(tmp_path / name, tmp_path / "built", shards=3)

    assert built.num_rows == len(ROWS)
    assert _keys_of(resolver, tmp_path / "built") == meant


@pytest.mark.fault("F10", "float32 columns in a Parquet manifest used as it is", "the key of the built manifest")
@pytest.mark.fault("F27", "Parquet as pandas, polars, DuckDB and PyArrow write it", "the key of the same CSV")
@pytest.mark.parametrize("name", [name for name in WRITERS if name.endswith(".parquet")])
def test_the_same_table_gives_the_same_keys_as_it_is(
    name: str, tmp_path: Path, resolver: Resolver, meant: dict[str, str]
) -> None:
    WRITERS[name](tmp_path / name)

    assert _keys_of(resolver, tmp_path / name) == meant


def test_every_row_of_the_table_has_a_key_of_its_own(resolver: Resolver, meant: dict[str, str]) -> None:
    assert len(set(meant.values())) == len(ROWS) == 40
    changed = [{**row, "guidance_scale": 7.300000190734863} for row in ROWS if row["guidance_scale"] == 7.3]
    columns = {name: [row[name] for row in changed] for name in COLUMNS if not name.startswith("x_")}
    assert not set(_keys(resolver, columns, len(changed)).values()) & set(meant.values())

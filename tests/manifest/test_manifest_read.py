"""Finding a manifest's shards and streaming their rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.servers import BUCKET

from sdbatch.errors import JobError, UserError
from sdbatch.manifest.read import BATCH_ROWS, RowBatch, list_shards, read_batches
from sdbatch.manifest.values import TEXT_BYTES_MAX
from sdbatch.storage import open_store

LONG = "x" * (TEXT_BYTES_MAX + 1)


def _write(file: Path, **columns: Any) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return str(file)


def _shard_names(manifest: str) -> list[str]:
    return [Path(shard.name).name for shard in list_shards(manifest, {})]


def _batches(manifest: str) -> list[RowBatch]:
    return [batch for shard in list_shards(manifest, {}) for batch in read_batches(shard)]


def _columns(tmp_path: Path, **columns: Any) -> dict[str, list[Any]]:
    """Write these columns as one shard, and return them as they are read."""
    (batch,) = _batches(_write(tmp_path / "a.parquet", **columns))
    return dict(batch.columns)


def _dictionary(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind).dictionary_encode()


# --- finding shards -------------------------------------------------------------------------------------------------


def test_a_file_is_one_shard(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", id=["a"])
    _write(tmp_path / "b.parquet", id=["b"])
    assert _shard_names(str(tmp_path / "a.parquet")) == ["a.parquet"]


def test_a_file_needs_no_suffix(tmp_path: Path) -> None:
    assert _shard_names(_write(tmp_path / "rows", id=["a"])) == ["rows"]


def test_a_folder_is_its_parquet_files_in_order_of_names(tmp_path: Path) -> None:
    for name in ("part-2.parquet", "part-0.parquet", "part-1.parquet", "deeper/part-3.parquet"):
        _write(tmp_path / name, id=["a"])
    (tmp_path / "_SUCCESS").touch()
    assert _shard_names(str(tmp_path)) == ["part-0.parquet", "part-1.parquet", "part-2.parquet"]


def test_a_folder_may_look_like_a_file(tmp_path: Path) -> None:
    _write(tmp_path / "rows.parquet" / "part-0.parquet", id=["a"])
    assert _shard_names(str(tmp_path / "rows.parquet")) == ["part-0.parquet"]


def test_a_glob_is_the_files_it_matches(tmp_path: Path) -> None:
    for name in ("a-1.parquet", "a-2.parquet", "b-1.parquet"):
        _write(tmp_path / name, id=["a"])
    assert _shard_names(str(tmp_path / "a-*.parquet")) == ["a-1.parquet", "a-2.parquet"]


def test_a_file_whose_name_holds_brackets_is_found(tmp_path: Path) -> None:
    assert _shard_names(_write(tmp_path / "rows[1].parquet", id=["a"])) == ["rows[1].parquet"]


@pytest.mark.parametrize("name", ["", "none.parquet", "*.parquet", "folder/none.parquet"])
def test_a_manifest_without_a_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="no Parquet file at /"):
        list_shards(str(tmp_path / name), {})


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        (
            "x_market=de",
            "a column of partition_cols stands in no file; write the table into one folder, without it",
        ),
        ("spring", r"itself; folders within it, such as spring/, are not read: shards lie in one folder"),
    ],
)
def test_folders_within_a_folder_without_shards_are_named(campaign_url: str, folder: str, says: str) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), table)
    open_store(campaign_url, {}).put(f"{folder}/part-0.parquet", table.getvalue())

    with pytest.raises(JobError, match=says):
        list_shards(campaign_url, {})


@pytest.mark.parametrize("data", [b"", b"id,prompt\na,b\n", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(JobError, match=r"a\.parquet: not a readable Parquet file"):
        list_shards(str(tmp_path), {})


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    file = Path(_write(tmp_path / "a.parquet", id=["a"] * 100))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(JobError, match="not a readable Parquet file"):
        list_shards(str(file), {})


def test_a_file_whose_pages_are_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [f"row-{n}" for n in range(5000)]}), file, compression="zstd")
    data = bytearray(file.read_bytes())
    data[20:4000] = b"\xff" * 3980
    file.write_bytes(data)
    (shard,) = list_shards(str(file), {})
    with pytest.raises(JobError, match="breaks off"):
        list(read_batches(shard))


@pytest.mark.parametrize("url", ["simplecache::file:///etc/passwd", "https://host/a.parquet", "s3://bucket/../a"])
def test_a_url_outside_the_schemes_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        list_shards(url, {})


def test_a_shard_carries_rows_and_problems_from_its_footer(tmp_path: Path) -> None:
    (shard,) = list_shards(_write(tmp_path / "a.parquet", id=["a", "b"], promt=["p", "q"], x_sku=["s", "t"]), {})
    assert shard.num_rows == 2
    assert [problem.column for problem in shard.problems] == ["promt"]
    assert dict(shard.own) == {"x_sku": pa.string()}


# --- streaming rows -------------------------------------------------------------------------------------------------


def test_batches_stream_with_the_rows_numbers(tmp_path: Path) -> None:
    ids = [f"row-{number}" for number in range(2 * BATCH_ROWS + 300)]
    pq.write_table(pa.table({"id": ids}), tmp_path / "a.parquet", row_group_size=700)
    batches = _batches(str(tmp_path / "a.parquet"))
    assert len(batches) > 2
    assert max(batch.num_rows for batch in batches) <= BATCH_ROWS
    rows = [(batch.start + offset, value) for batch in batches for offset, value in enumerate(batch.columns["id"])]
    assert rows == list(enumerate(ids))


def test_row_numbers_begin_anew_in_each_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.parquet", id=["x", "y"])
    assert [(Path(batch.shard).name, batch.start) for batch in _batches(str(tmp_path))] == [
        ("a.parquet", 0),
        ("b.parquet", 0),
    ]


def test_a_shard_without_rows_is_no_batch(tmp_path: Path) -> None:
    assert _batches(_write(tmp_path / "a.parquet", id=pa.array([], pa.string()))) == []


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.7, 0.1, 7.5, 1.0])
def test_a_narrow_float_is_read_through_its_shortest_decimal(
    tmp_path: Path, kind: type[np.floating[Any]], value: float
) -> None:
    columns = _columns(tmp_path, id=["a", "b"], strength=pa.array([kind(value), None], pa.from_numpy_dtype(kind)))
    assert columns["strength"] == [value, None]


@pytest.mark.parametrize(
    ("name", "array", "values"),
    [
        ("height", pa.array([64, None], pa.int64()), [64, None]),
        ("prompt", pa.array(["p", None], pa.large_string()), ["p", None]),
        ("prompt", _dictionary(["p", None]), ["p", None]),
        ("prompt", _dictionary(["p", None], pa.large_string()), ["p", None]),
        ("prompt", pa.nulls(2), [None, None]),
        ("height", _dictionary([64, None]), [64, None]),
        ("images", pa.array(["a.png", None]), ["a.png", None]),
        ("images", _dictionary(["a.png", None]), ["a.png", None]),
        ("images", pa.array([["a.png", "b.png"], None]), [["a.png", "b.png"], None]),
        ("images", pa.array([["a.png"], []], pa.large_list(pa.large_string())), [["a.png"], []]),
    ],
)
def test_a_column_of_another_fitting_type_reads_as_plain_values(
    tmp_path: Path, name: str, array: pa.Array, values: list[Any]
) -> None:
    assert _columns(tmp_path, id=["a", "b"], **{name: array})[name] == values


def test_a_column_that_was_refused_is_left_out(tmp_path: Path) -> None:
    columns = _columns(tmp_path, id=["a"], height=["tall"], promt=["p"], prompt=["q"])
    assert columns == {"id": ["a"], "prompt": ["q"]}


def test_the_user_s_columns_are_carried_with_plain_types(tmp_path: Path) -> None:
    own = {
        "x_sku": _dictionary(["s", None]),
        "x_rank": pa.array([1, None], pa.int16()),
        "x_price": pa.array([0.7, None], pa.float32()),
        "x_note": pa.array(["long", None], pa.large_string()),
    }
    (batch,) = _batches(_write(tmp_path / "a.parquet", id=["a", "b"], **own))
    plain = {"x_sku": pa.string(), "x_rank": pa.int16(), "x_price": pa.float32(), "x_note": pa.string()}
    assert dict(zip(batch.own.column_names, batch.own.schema.types, strict=True)) == plain
    assert batch.own.to_pydict() == {name: array.to_pylist() for name, array in own.items()}
    assert set(batch.columns) == {"id"}


# --- strangers' files -----------------------------------------------------------------------------------------------


def test_a_small_file_that_expands_without_bound_is_refused(tmp_path: Path) -> None:
    rows, text = 200_000, "x" * 500_000
    prompts = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [text])
    ids = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a"])
    file = tmp_path / "bomb.parquet"
    # Without the Arrow schema it is a plain string column, as other writers leave it.
    pq.write_table(pa.table({"id": ids, "prompt": prompts}), file, compression="zstd", store_schema=False)
    assert pq.read_schema(file).field("prompt").type == pa.string()
    assert rows * len(text) > 1_000_000 * file.stat().st_size
    (shard,) = list_shards(str(file), {})
    with pytest.raises(JobError, match=rf"bomb\.parquet: prompt in rows 0\.\. .* {len(text)} bytes, over"):
        next(read_batches(shard))


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", LONG), ("prompt", LONG), ("mask", LONG), ("x_note", LONG), ("images", LONG), ("images", [LONG])],
    ids=["id", "prompt", "mask", "x_note", "images", "images as a list"],
)
def test_a_text_over_the_cap_is_refused_in_every_column(tmp_path: Path, name: str, value: Any) -> None:
    (shard,) = list_shards(_write(tmp_path / "a.parquet", **{"id": ["a"], name: [value]}), {})
    with pytest.raises(JobError, match=f"{name} in rows 0.. has a text of {len(LONG)} bytes, over {TEXT_BYTES_MAX}"):
        list(read_batches(shard))


def test_the_cap_counts_bytes_not_characters(tmp_path: Path) -> None:
    fits, over = "ä" * (TEXT_BYTES_MAX // 2), "ä" * (TEXT_BYTES_MAX // 2 + 1)
    assert _columns(tmp_path, id=["a"], prompt=[fits])["prompt"] == [fits]
    with pytest.raises(JobError, match=f"over {TEXT_BYTES_MAX}"):
        _columns(tmp_path, id=["a"], prompt=[over])


@pytest.mark.parametrize("column", ["prompt", "x_note"])
def test_a_text_that_is_not_utf_8_is_its_row_s_problem(tmp_path: Path, column: str) -> None:
    offsets = pa.array([0, 2, 3], pa.int32()).buffers()[1]
    broken = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"\xff\xfea"))
    (batch,) = _batches(_write(tmp_path / "a.parquet", id=["bad", "good"], **{column: broken}))
    values = batch.columns[column] if column in batch.columns else batch.own.column(column).to_pylist()

    assert values == [None, "a"]
    assert [(p.row, p.id, p.column, p.message) for p in batch.problems] == [(0, "bad", column, "is not UTF-8 text")]


# --- remote shards --------------------------------------------------------------------------------------------------


@pytest.mark.s3
@pytest.mark.fault("F28", "a manifest on S3", "copied to this machine's disk, read by Arrow alone, and removed again")
def test_a_remote_shard_is_read_from_a_copy_that_goes(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/manifest-{tmp_path.parent.name}"
    rows = 9000
    # Many row groups, so that the footer is longer than the part of the file that is read first.
    sink = pa.BufferOutputStream()
    names = [f"x_{number}" for number in range(30)]
    own = {name: [name] * rows for name in names}
    pq.write_table(pa.table({"id": [f"r{number}" for number in range(rows)], **own}), sink, row_group_size=300)
    data = sink.getvalue().to_pybytes()
    assert int.from_bytes(data[-8:-4], "little") > 64 << 10
    open_store(url, {}).put_new("part-0.parquet", data)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (shard,) = list_shards(url, {})
    batches = read_batches(shard)
    first = next(batches)
    copies = list(tmp_path.iterdir())
    read = first.num_rows + sum(batch.num_rows for batch in batches)

    assert shard.num_rows == read == rows
    assert set(first.own.column_names) == set(names)
    assert len(copies) == 1
    assert list(tmp_path.iterdir()) == []

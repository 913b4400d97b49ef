"""Streams a manifest, so that it is never in memory as a whole, within bounds on texts and batches.

    URL --> list_shards() --> Shard (footer only) --> read_batches() --> RowBatch

A Parquet file of some hundred bytes can expand to gigabytes, and its footer need not say so. Text columns are therefore
read as dictionaries, and their longest value is checked before rows become Python values.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sdbatch.errors import JobError, Problem
from sdbatch.job import Storage
from sdbatch.manifest.schema import COLUMNS, check_schema, is_text, own_fields
from sdbatch.storage import Store, joined, open_store, parse_url, split

BATCH_ROWS = 4096
"""Rows of a batch. Every batch carries the dictionaries of its row group, so many short batches would cost more."""

BATCH_BYTES_MAX = 256 << 20
TEXT_BYTES_MAX = 64 << 10
"""Longest text of any column; a longer one is refused unread. Prompts have a tighter bound of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One Parquet file of the manifest.

    Attributes:
        name: URL, as messages name it.
        folder: Store that holds the file.
        path: Name of the file in that store.
        num_rows: Number of rows, from the footer.
        own: The user's x_* columns and their types.
        problems: Problems of its columns.
    """

    name: str
    folder: Store
    path: str
    num_rows: int
    own: Mapping[str, pa.DataType]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Some consecutive rows of one shard.

    Attributes:
        shard: Name of the shard.
        start: Number of the first row in the shard, from 0.
        num_rows: Number of rows.
        columns: Present known columns as Python values; float32 read through their shortest decimal.
        own: The user's x_* columns, unchanged.
    """

    shard: str
    start: int
    num_rows: int
    columns: Mapping[str, list[Any]]
    own: pa.Table


def list_shards(manifest: str, storage: Mapping[str, Storage]) -> list[Shard]:
    """Find the manifest's shards and read their footers.

    Args:
        manifest: A file, a folder of `*.parquet`, or a glob in the last part of the path.
        storage: The job's options by URL prefix.

    Returns:
        Shards sorted by name.

    Raises:
        JobError: When there is none, or one is not Parquet.
    """
    location = parse_url(manifest)
    folder_url, name = split(manifest)
    if not any(letter in name for letter in "*?["):
        folder = open_store(location.url, storage)
        paths = [e.path for e in folder.list(deep=False) if e.path.endswith(".parquet")] if _is_folder(folder) else []
        if paths:
            return [_shard(folder, path) for path in paths]
    parent = open_store(folder_url, storage)
    names = [entry.path for entry in parent.list(deep=False)] if _is_folder(parent) else []
    shards = [_shard(parent, path) for path in names if path == name or fnmatch.fnmatchcase(path, name)]
    if not shards:
        raise JobError(f"manifest: {manifest}: no Parquet file at {location.url}")
    return shards


def _is_folder(store: Store) -> bool:
    return not store.is_local or Path(store.url).is_dir()


def _shard(folder: Store, path: str) -> Shard:
    name = joined(folder.url, path)
    try:
        file = pq.ParquetFile(folder.open(path))
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"manifest: {name}: not a readable Parquet file: {error}") from error
    return Shard(
        name=name,
        folder=folder,
        path=path,
        num_rows=file.metadata.num_rows,
        own=own_fields(schema),
        problems=tuple(check_schema(schema, name)),
    )


def read_batches(shard: Shard) -> Iterator[RowBatch]:
    """Stream a shard's rows; columns whose type was refused are left out.

    Raises:
        JobError: When the file is over a cap or breaks off.
    """
    refused = {problem.column for problem in shard.problems}
    with shard.folder.open(shard.path) as handle:
        try:
            schema = pq.ParquetFile(handle).schema_arrow
            known = [name for name in dict.fromkeys(schema.names) if name in COLUMNS or name.startswith("x_")]
            names = [name for name in known if name not in refused]
            file = pq.ParquetFile(handle, read_dictionary=_text_leaves(handle, names))
            start = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False):
                yield _row_batch(shard, start, pa.Table.from_batches([batch]))
                start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise JobError(f"manifest: {shard.name}: breaks off: {error}") from error
        except UnicodeDecodeError as error:
            raise JobError(f"manifest: {shard.name}: a text is not UTF-8: {error}") from error


def _text_leaves(handle: BinaryIO, names: list[str]) -> list[str]:
    """Return the Parquet paths of all texts in some columns, those inside lists too."""
    leaves = pq.ParquetFile(handle).schema
    paths = [leaves.column(number).path for number in range(len(leaves.names))]
    kinds = [leaves.column(number).physical_type for number in range(len(leaves.names))]
    return [
        path for path, kind in zip(paths, kinds, strict=True) if kind == "BYTE_ARRAY" and path.split(".")[0] in names
    ]


def _row_batch(shard: Shard, start: int, table: pa.Table) -> RowBatch:
    if table.nbytes > BATCH_BYTES_MAX:
        raise JobError(f"manifest: {shard.name}: rows {start}.. take {table.nbytes} bytes, over {BATCH_BYTES_MAX}")
    for name in table.column_names:
        _refuse_long_text(shard, start, name, table.column(name))
    own = [name for name in table.column_names if name.startswith("x_")]
    return RowBatch(
        shard=shard.name,
        start=start,
        num_rows=table.num_rows,
        columns={name: _values(table.column(name)) for name in table.column_names if name not in own},
        own=pa.table({name: table.column(name).cast(shard.own[name]) for name in own}),
    )


def _refuse_long_text(shard: Shard, start: int, name: str, column: pa.ChunkedArray) -> None:
    for chunk in column.chunks:
        longest = max((pc.max(pc.binary_length(words)).as_py() or 0 for words in _texts(chunk)), default=0)
        if longest > TEXT_BYTES_MAX:
            raise JobError(
                f"manifest: {shard.name}: {name} in rows {start}.. has a text of {longest} bytes, over {TEXT_BYTES_MAX}"
            )


def _texts(values: pa.Array) -> Iterator[pa.Array]:
    """Yield the arrays of distinct texts in a column, also those inside dictionaries, lists and structs."""
    if pa.types.is_dictionary(values.type):
        yield from _texts(values.dictionary)
    elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        yield from _texts(values.values)
    elif pa.types.is_struct(values.type):
        for number in range(values.type.num_fields):
            yield from _texts(values.field(number))
    elif is_text(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        yield values


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        kind = np.float32 if pa.types.is_float32(column.type) else np.float16
        return [None if value is None else float(str(kind(value))) for value in column.to_pylist()]
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_dictionary(column.type):
        return [value for chunk in column.chunks for value in _spelled_out(chunk)]
    return list(column.to_pylist())


def _spelled_out(chunk: pa.DictionaryArray) -> list[Any]:
    """Return a dictionary column as Python values; rows share the string of an equal text, unlike in to_pylist."""
    if len(chunk.dictionary) > len(chunk):
        return chunk.dictionary_decode().to_pylist()  # type: ignore[no-any-return]
    values = chunk.dictionary.to_pylist()
    return [None if place is None else values[place] for place in chunk.indices.to_pylist()]

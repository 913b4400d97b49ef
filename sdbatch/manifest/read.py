"""Streams a manifest, so that it is never in memory as a whole, within bounds on texts and batches.

    URL --> list_shards() --> Shard (footer only) --> read_batches() --> RowBatch

A Parquet file of some hundred bytes can expand to gigabytes, and its footer need not say so. Text columns are therefore
read as dictionaries, their longest value is checked, and batches are cut smaller where each row's own copy of its texts
would take too much, all before rows become Python values.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sdbatch.errors import JobError, Problem
from sdbatch.job import Storage
from sdbatch.manifest.column_values import column_values, own_column, python_values
from sdbatch.manifest.origin import Origin
from sdbatch.manifest.page_heads import plain_columns
from sdbatch.manifest.row_place import problem_at
from sdbatch.manifest.schema import COLUMNS, check_schema, is_list, is_text, own_fields
from sdbatch.manifest.shard_file import READ_FAULTS, opened, read_footer
from sdbatch.manifest.tables import TABLES
from sdbatch.manifest.values import TEXT_BYTES_MAX
from sdbatch.storage import Store, joined, open_store, parse_url, split

_PARQUET: Final = ".parquet"
_TABLES: Final = (*(suffix for suffix in TABLES if suffix != ".txt"), ".parq", ".pq")
"""Suffixes of tables; a .txt beside shards is rather a note of their maker's."""
BATCH_ROWS = 8192
"""Rows of a batch. Every batch carries the dictionaries of its row group, so shorter ones would cost more."""

BATCH_BYTES_MAX = 256 << 20
BATCH_TEXT_BYTES_MAX = 64 << 20
"""Bytes of a batch's texts once each row has its own; a batch over it is cut into smaller ones."""


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
        columns: Names of all its columns, in the file.
        names: The manifest's name of each column that is read, by its name in the file.
        also: Columns of the file that are read as they stand there, beside the manifest's.
        origin: The table that the shard was built from, if it says so.
        text_bytes_max: Bytes that its texts may take once each row has its own.
    """

    name: str
    folder: Store
    path: str
    num_rows: int
    own: Mapping[str, pa.DataType]
    problems: tuple[Problem, ...]
    columns: tuple[str, ...]
    names: Mapping[str, str]
    also: tuple[str, ...] = ()
    origin: Origin | None = None
    text_bytes_max: int = BATCH_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Some consecutive rows of one shard.

    Attributes:
        shard: Name of the shard.
        start: Number of the first row in the shard, from 0.
        num_rows: Number of rows.
        columns: Present known columns as Python values, as `values.read_value` has them; None where one was refused.
        own: The user's x_* columns, unchanged.
        problems: Values that were refused.
        also: Columns that the shard reads beside the manifest's.
        origin: The table that the shard was built from, if it says so.
    """

    shard: str
    start: int
    num_rows: int
    columns: Mapping[str, list[Any]]
    own: pa.Table
    problems: tuple[Problem, ...] = ()
    also: Mapping[str, list[Any]] = field(default_factory=dict)
    origin: Origin | None = None


def list_shards(manifest: str, storage: Mapping[str, Storage], unread: list[str] | None = None) -> list[Shard]:
    """Find the manifest's shards and read their footers.

    Args:
        manifest: A file, a folder of `*.parquet`, or a glob in the last part of the path.
        storage: The job's options by URL prefix.
        unread: Gets the names of tables that lie in a folder of shards and are none: `extra.csv`, `b.PARQUET`.

    Returns:
        Shards sorted by name.

    Raises:
        JobError: When there is none, one is not Parquet, or one is over a bound.
    """
    location = parse_url(manifest)
    folder_url, name = split(manifest)
    if not any(letter in name for letter in "*?["):
        folder = open_store(location.url, storage)
        names = [entry.path for entry in folder.list(deep=False)] if _is_folder(folder) else []
        if paths := [path for path in names if path.endswith(_PARQUET)]:
            if unread is not None:
                unread += [path for path in names if path.lower().endswith(_TABLES) and path not in paths]
            return [open_shard(folder, path) for path in paths]
    parent = open_store(folder_url, storage)
    names = [entry.path for entry in parent.list(deep=False)] if _is_folder(parent) else []
    shards = [open_shard(parent, path) for path in names if path == name or fnmatch.fnmatchcase(path, name)]
    if not shards:
        within = _folders_within(location.url, storage)
        raise JobError(f"manifest: {manifest}: no Parquet file at {location.url}{within}")
    return shards


def _folders_within(url: str, storage: Mapping[str, Storage]) -> str:
    """Return what a message says of a folder without shards that has folders: they are not read."""
    store = open_store(url, storage)
    names = [name for name in store.folders("") if not name.startswith((".", "_"))] if _is_folder(store) else []
    if not names:
        return ""
    advice = "shards lie in one folder"
    if all("=" in name for name in names):
        advice = "a column of partition_cols stands in no file; write the table into one folder, without it"
    return f" itself; folders within it, such as {names[0]}/, are not read: {advice}"


def _is_folder(store: Store) -> bool:
    return not store.is_local or Path(store.url).is_dir()


def open_shard(
    folder: Store,
    path: str,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Collection[str] = (),
    also: Sequence[str] = (),
) -> Shard:
    """Read the footer of a shard.

    Args:
        folder: Store that holds it.
        path: Its name there.
        rename: The manifest's name of a column, by its name in the file.
        drop: Columns of the file to leave out.
        also: Columns of the file to read beside the manifest's.

    Raises:
        JobError: When it is not Parquet, or over a bound.
    """
    name = joined(folder.url, path)
    footer = read_footer(folder, path)
    fields = [column for column in footer.schema if column.name not in drop]
    named = pa.schema([column.with_name((rename or {}).get(column.name, column.name)) for column in fields])
    problems = tuple(check_schema(named, name))
    refused = {problem.column for problem in problems}
    pairs = {one.name: two.name for one, two in zip(fields, named, strict=True) if two.name not in refused}
    is_read = None not in refused  # of a shard with too many columns none is read
    return Shard(
        name=name,
        folder=folder,
        path=path,
        num_rows=footer.metadata.num_rows,
        own={name: kind for name, kind in own_fields(named).items() if name not in refused},
        problems=problems,
        columns=tuple(footer.schema.names),
        names={one: two for one, two in pairs.items() if two in COLUMNS or two.startswith("x_")} if is_read else {},
        also=tuple(column for column in also if column in footer.schema.names),
        origin=Origin.from_footer(footer.metadata.metadata),
        text_bytes_max=footer.expanded_bytes_max,
    )


def read_batches(shard: Shard) -> Iterator[RowBatch]:
    """Stream a shard's rows; columns whose type was refused are left out.

    Raises:
        JobError: When the file is over a cap or breaks off.
    """
    names = list(dict.fromkeys((*shard.names, *shard.also)))
    if not names:
        return
    start = text_bytes = 0
    try:
        with opened(shard.folder, shard.path) as file:
            leaves = _text_leaves(pq.ParquetFile(file).schema, names)
            plain = plain_columns(file, leaves)
            leaves = [leaf for leaf in leaves if leaf not in plain]
            parquet = pq.ParquetFile(file, read_dictionary=leaves)
            for batch in _batches(parquet, names, leaves):
                for table, size in _pieces(shard, start, pa.Table.from_batches([batch]).select(names)):
                    text_bytes += size
                    if text_bytes > shard.text_bytes_max:
                        bound = shard.text_bytes_max
                        raise JobError(f"manifest: {shard.name}: its texts take over {bound} bytes, by row {start}")
                    yield _row_batch(shard, start, table)
                    start += table.num_rows
    except READ_FAULTS as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise JobError(f"manifest: {shard.name}: breaks off: {message}") from error


def _batches(parquet: pq.ParquetFile, names: list[str], leaves: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield batches; where texts stand inside lists, none goes over the end of a row group.

    Arrow 26 cannot put the dictionaries of two row groups together inside a list.
    """
    every = range(parquet.num_row_groups)
    for groups in [[group] for group in every] if any("." in leaf for leaf in leaves) else [list(every)]:
        yield from parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)


def _text_leaves(leaves: pq.ParquetSchema, names: Sequence[str]) -> list[str]:
    """Return the Parquet paths of all texts in some columns, those inside lists too."""
    columns = [leaves.column(number) for number in range(len(leaves.names))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and any(f"{column.path}.".startswith(f"{name}.") for name in names)
    ]


def _pieces(shard: Shard, start: int, table: pa.Table) -> Iterator[tuple[pa.Table, int]]:
    """Yield a batch in pieces whose texts are within the bound, and the bytes of these."""
    if table.nbytes > BATCH_BYTES_MAX:
        raise JobError(f"manifest: {shard.name}: rows {start}.. take {table.nbytes} bytes, over {BATCH_BYTES_MAX}")
    sizes = np.zeros(table.num_rows, np.int64)
    for name in table.column_names:
        _refuse_long_text(shard, start, name, table.column(name))
        sizes += _text_sizes(table.column(name))
    # Rows go together until the next one would take them over the bound.
    pieces = np.cumsum(sizes) // BATCH_TEXT_BYTES_MAX
    edges = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), table.num_rows]
    for first, end in itertools.pairwise(edges):
        if end > first:
            yield table.slice(first, end - first), int(sizes[first:end].sum())


def _text_sizes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the bytes of each row's text; 0 for lists, whose number of items has a bound of its own."""
    sizes = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and (is_text(chunk.type) or pa.types.is_binary(chunk.type.value_type)):
            lengths = pc.take(pc.fill_null(pc.binary_length(chunk.dictionary), 0), chunk.indices)
        elif pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
            lengths = pc.binary_length(chunk)
        else:
            lengths = pa.nulls(len(chunk), pa.int64())
        sizes.append(np.asarray(pc.fill_null(lengths.cast(pa.int64()), 0)))
    return np.concatenate(sizes) if sizes else np.zeros(0, np.int64)


def _row_batch(shard: Shard, start: int, table: pa.Table) -> RowBatch:
    columns: dict[str, list[Any]] = {}
    own: dict[str, pa.ChunkedArray] = {}
    refused: list[tuple[int, str, Any, str]] = []
    for source, name in shard.names.items():
        column = table.column(source)
        if name in COLUMNS:
            columns[name], of_column = column_values(name, column)
        else:
            own[name], of_column = own_column(column, shard.own[name])
        refused.extend((offset, name, value, message) for offset, (value, message) in of_column.items())
    batch = RowBatch(
        shard=shard.name,
        start=start,
        num_rows=table.num_rows,
        columns=columns,
        own=pa.table(own),
        also={name: list(python_values(table.column(name))) for name in shard.also},
        origin=shard.origin,
    )
    problems = tuple(problem_at(batch, *place) for place in sorted(refused, key=lambda place: place[:2]))
    return dataclasses.replace(batch, problems=problems) if problems else batch


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
        places = pc.min_max(values.indices).as_py()
        if places["min"] is not None and not 0 <= places["min"] <= places["max"] < len(values.dictionary):
            raise ValueError("a text that is not in the column's dictionary")
        yield from _texts(values.dictionary)
    elif is_list(values.type):
        yield from _texts(values.flatten())
    elif pa.types.is_struct(values.type):
        for number in range(values.type.num_fields):
            yield from _texts(values.field(number))
    elif isinstance(values.type, pa.BaseExtensionType):
        yield from _texts(values.storage)
    elif is_text(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        yield values.cast(pa.string()) if pa.types.is_string_view(values.type) else values

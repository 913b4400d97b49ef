"""The files of a campaign, of every version that was ever written.

    bytes --> read_table(), read_object() --> the present form; a file of a later version is refused by its name

What an older version lacks is null. The reader of a version stands in one row of `READERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import NewerFormat
from sdbatch.storage.footers import refuse_damaged_footer
from sdbatch.storage.in_arrow import in_arrow

_MARK: Final = b"sdbatch.format_version"
_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """The functions that bring files of one version up to the present form.

    Attributes:
        table: Converts the rows of a Parquet file.
        values: Converts the object of a JSON file.
    """

    table: Callable[[pa.Table], pa.Table]
    values: Callable[[dict[str, Any]], dict[str, Any]]


READERS: Final[Mapping[int, Reader]] = {
    1: Reader(table=lambda table: table, values=lambda values: values),
}
"""Readers by version. An added column does not need a new version: where it is missing, it is null."""

_OLDEST = min(READERS)


def read_table(
    data: bytes, name: str, wanted: pa.Schema | None = None, *, few: tuple[str, ...] = (), is_whole: bool = False
) -> pa.Table:
    """Read a Parquet file of a campaign.

    Args:
        data: The whole file.
        name: Its URL, for the message.
        wanted: Columns and their types; one that the file lacks is null. None for all, as they lie.
        few: Columns with few different texts, which are kept as codes.
        is_whole: Whether the columns that are not wanted are read too, so that damage in them shows.

    Raises:
        NewerFormat: When a later version wrote it.
        pa.ArrowException: When it is not a Parquet file, or torn.
    """
    file, reader = _opened(data, name, few)
    with _torn_alike():
        columns = _there(file, wanted)
        others = set(file.schema_arrow.names).difference(columns or ())
        if is_whole and columns is not None and others:
            for _ in file.iter_batches(_BATCH_ROWS, columns=sorted(others), use_threads=False):
                pass
        table = reader.table(file.read(columns=columns, use_threads=False))
        return _as_wanted(table, _coded(wanted, few))


def read_batches(data: bytes, name: str, wanted: pa.Schema, *, few: tuple[str, ...] = ()) -> Iterator[pa.Table]:
    """Yield a Parquet file of a campaign in tables of some ten thousand rows; see `read_table`.

    Args:
        data: The whole file; a caller that does not hold on to it saves its memory.
        name: Its URL, for the message.
        wanted: As there.
        few: As there.
    """
    file, reader = _opened(data, name, few)
    del data  # Arrow has its own copy, and the snapshot of ten million rows takes 300 MB
    with _torn_alike():
        batches = file.iter_batches(_BATCH_ROWS, columns=_there(file, wanted), use_threads=False)
    while True:
        with _torn_alike():
            batch = next(batches, None)
            if batch is None:
                return
            table = _as_wanted(reader.table(pa.Table.from_batches([batch])), _coded(wanted, few))
        yield table


def read_object(data: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object of a campaign.

    Raises:
        NewerFormat: When a later version wrote it.
        ValueError: When it is not a JSON object.
    """
    try:
        values = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{name} holds brackets within brackets") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds {type(values).__name__} and no JSON object")  # noqa: TRY004 -- as a torn one
    return _reader(values.get("format_version", _OLDEST), name).values(values)


def _opened(data: bytes, name: str, few: tuple[str, ...] = ()) -> tuple[pq.ParquetFile, Reader]:
    refuse_damaged_footer(data)
    source = in_arrow(data)
    with _torn_alike():
        metadata = pq.read_metadata(source)
        there = set(metadata.schema.names)  # an older file lacks some; Arrow refuses to code a column that is not there
        coded = [column for column in few if column in there]
        file = pq.ParquetFile(source, metadata=metadata, read_dictionary=coded, page_checksum_verification=True)
        marks = file.schema_arrow.metadata or {}
        version = marks.get(_MARK, str(_OLDEST).encode()).decode()
    return file, _reader(int(version) if version.isdecimal() else version, name)


@contextmanager
def _torn_alike() -> Iterator[None]:
    """Raise one kind of error for whatever Arrow raises of a file that is torn, or made to harm."""
    try:
        yield
    except pa.ArrowException:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise pa.ArrowInvalid(f"{type(error).__name__}: {error}") from error


def _reader(version: object, name: str) -> Reader:
    if isinstance(version, int) and version in READERS:
        return READERS[version]
    raise NewerFormat(f"{name} has format_version {str(version)[:40]}; this sdbatch reads up to {max(READERS)}")


def _coded(wanted: pa.Schema | None, few: tuple[str, ...]) -> pa.Schema | None:
    if wanted is None:
        return None
    return pa.schema([pa.field(f.name, pa.dictionary(pa.int32(), f.type)) if f.name in few else f for f in wanted])


def _there(file: pq.ParquetFile, wanted: pa.Schema | None) -> list[str] | None:
    if wanted is None:
        return None
    there = set(file.schema_arrow.names)  # built anew each time that it is asked for
    return [name for name in wanted.names if name in there]


def _as_wanted(table: pa.Table, wanted: pa.Schema | None) -> pa.Table:
    if wanted is None:
        return table
    there = set(table.column_names)
    columns = [
        _cast(table.column(field.name), field.type) if field.name in there else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """Return a column in another type; a text where there may be several today is a list of one."""
    if pa.types.is_list(kind) and not pa.types.is_list(column.type):
        return pa.array([None if value is None else [value] for value in column.to_pylist()], kind)
    return column.cast(kind)

"""The metadata row: one per asset, or per failure. A public contract."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.columns import COLUMNS
from sdbatch.storage.footers import checked_file, with_footer_sum
from sdbatch.storage.in_arrow import in_arrow
from sdbatch.types import FORMAT_VERSION
from sdbatch.verdicts import JOINED_SCHEMA

METADATA: Final = pa.schema([(column.name, column.type) for column in COLUMNS if column.in_metadata])
"""Columns of the effective metadata, the user's x_* apart. `n` is null when a request failed as a whole; `seed` is the
output's own; times are this output's share of its batch, in wall seconds; `versions` and `accelerators` are JSON
objects; `stages` holds what each stage after the model said, `stages_digest` stands for the settings of those that may
block."""

EFFECTIVE: Final = pa.schema([*METADATA, *JOINED_SCHEMA])
"""Columns of the metadata as they are read: verdicts are joined, and stored nowhere else than with the decisions."""

PICTURES: Final = pa.schema([("thumbnail", pa.binary()), ("source_thumbnail", pa.binary())])
"""Small JPEGs of an output, and of its first source as the model saw it, for the gallery; older commits hold WebPs."""

COMMIT: Final = pa.unify_schemas([METADATA, PICTURES])
"""A commit's columns: the metadata and the pictures."""

INDEX: Final = pa.schema(
    [
        ("id", pa.string()),
        ("request_key", pa.string()),
        ("n", pa.int32()),
        ("status", pa.string()),
        ("error_type", pa.string()),
        ("error_retryable", pa.bool_()),
        ("stages_digest", pa.string()),
        ("replaces", pa.int32()),
        ("commit", pa.string()),
    ]
)
"""Columns that a resume reads of a commit's rows; `commit` is the path of the file they stand in."""

VOID: Final = pa.schema([("id", pa.string()), ("request_key", pa.string()), ("n", pa.int32())])
"""Outputs whose earlier commits no longer count (redo, gc); `request_key` may be its first 8 digits, as in a name."""


def to_parquet(table: pa.Table, *, for_query: bool = True, distinct: Collection[str] = (), **notes: str) -> bytes:
    """Return a table as one Parquet file.

    Args:
        table: The rows.
        for_query: Whether people look for some of its rows. A commit is read whole, and is smaller and
            faster to write without the dictionaries and statistics that each column would have.
        distinct: Columns of a flat table that differ in every row: a dictionary of them would only be given up again.
        notes: Go into its footer, as does the format version.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(marks(**notes)),
        sink,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in distinct] if distinct else for_query,
        write_statistics=for_query,
        data_page_version="1.0" if for_query else "2.0",  # 2.0 compresses values alone, and many columns have none
        write_page_checksum=True,
    )
    return with_footer_sum(sink.getvalue())


def marks(**notes: str) -> dict[bytes, bytes]:
    """Return what stands in the footer of every Parquet file of a campaign: format version and notes."""
    named = {"format_version": str(FORMAT_VERSION), **notes}
    return {f"sdbatch.{name}".encode(): value.encode() for name, value in named.items()}


def from_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Read what `to_parquet` wrote."""
    table = checked_file(data).read(columns=columns, use_threads=False)
    if columns is None:
        return table
    return table.select([name for name in columns if name in table.column_names])  # a file has an order of its own


def footer(data: bytes) -> Mapping[str, str]:
    """Return the notes in a Parquet file's footer."""
    metadata = pq.read_schema(in_arrow(data)).metadata or {}
    return {
        name.decode().removeprefix("sdbatch."): value.decode()
        for name, value in metadata.items()
        if name.startswith(b"sdbatch.")
    }


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; absent columns are null."""
    listed = list(rows)
    names = set().union(*listed)
    # One conversion of whole rows takes half the time of a list for each column; what no row has is not asked for.
    there = pa.struct([field for field in schema if field.name in names])
    found = pa.RecordBatch.from_struct_array(pa.array(listed, there))
    columns = [
        found.column(field.name) if field.name in names else pa.nulls(len(listed), field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)

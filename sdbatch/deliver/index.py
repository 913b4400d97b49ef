"""The files at a target, and what each was made of: `delivered.parquet`, and `delivered.csv` for people.

    rows by name --> to_parquet() --> bytes --> from_parquet() --> the same rows

A row stands there before its file is made (`planned`), so that a name is known as a delivery's own also after a kill.
Nothing in it tells of time: a delivery that changes nothing writes the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import NewerFormat, UserError
from sdbatch.storage.footers import checked_file, with_footer_sum

INDEX: Final = "delivered.parquet"
TABLE: Final = "delivered.csv"
INDEX_VERSION: Final = 1
PLANNED, MADE, FAILED = "planned", "ok", "failed"
BEFORE: Final = "before "
"""Begins the key of a file in whose place another is made: after a kill nobody knows which of them lies there."""
_MARK: Final = b"sdbatch.delivered_version"

SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()),
        ("status", pa.string()),
        ("delivery", pa.string()),
        ("campaign", pa.string()),
        ("format", pa.string()),
        ("id", pa.string()),
        ("n", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("media_type", pa.string()),
        ("file_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("quality", pa.int32()),
        ("crop", pa.float64()),
        ("enlargement", pa.float64()),
        ("error_message", pa.string()),
        ("request_key", pa.string()),
        ("asset", pa.string()),
        ("asset_sha256", pa.string()),
        ("key", pa.string()),
        ("archive", pa.string()),
        ("ledger", pa.string()),
        ("content_sha256", pa.string()),
        ("fingerprint", pa.string()),
        ("c2pa_label", pa.string()),
        ("signer", pa.string()),
        ("sidecar_sha256", pa.string()),
        ("source_digests", pa.list_(pa.string())),
        ("verdict", pa.string()),
        ("reviewed_by", pa.string()),
    ]
)
"""Columns, the user's x_* apart, which stand there as texts. `status` is planned, ok or failed; `campaign` is where the
masters were, null in rows of older versions; `key` stands for all that decides the file's bytes; `archive` is the zip
that holds it; `ledger` is the ledger file that tells of it; `content_sha256` is of the file before it was signed,
`fingerprint` of what it shows."""

OF_FILE: Final = (
    *("status", "file_bytes", "sha256", "quality", "archive", "ledger"),
    *("content_sha256", "fingerprint", "c2pa_label", "signer", "sidecar_sha256"),
)
"""Columns about the file itself; the others follow from the campaign and the delivery as they are today."""

_FOR_PEOPLE: Final = (
    "name",
    "status",
    "format",
    "id",
    "n",
    "width",
    "height",
    "file_bytes",
    "quality",
    "error_message",
)
Rows = dict[str, dict[str, Any]]


def to_parquet(rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return rows, which have their names as keys, as one Parquet file, sorted by name."""
    ordered = [rows[name] for name in sorted(rows)]
    own = sorted({name for row in ordered for name in row if name.startswith("x_")})
    schema = pa.schema([*SCHEMA, *((name, pa.string()) for name in own)])
    columns = [pa.array([row.get(field.name) for row in ordered], field.type) for field in schema]
    table = pa.table(columns, schema=schema.with_metadata({_MARK: str(INDEX_VERSION).encode()}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return with_footer_sum(sink.getvalue())


def from_parquet(data: bytes, name: str) -> Rows:
    """Return the rows of an index by name.

    Raises:
        UserError: When it is not what `to_parquet` wrote, or a later version did.
    """
    try:
        table = checked_file(data).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, str(error)[:100]) from error
    mark = (table.schema.metadata or {}).get(_MARK, b"").decode("ascii", "replace")
    if mark.isdigit() and int(mark) > INDEX_VERSION:
        raise NewerFormat(f"{name}: version {mark} is newer than {INDEX_VERSION}, which this sdbatch reads; update it")
    if not mark.isdigit() or not {"name", "delivery", "key", "status"} <= set(table.column_names):
        raise _unreadable(name, "its columns are others")
    rows = {row["name"]: row for row in table.to_pylist()}
    if any(not isinstance(key, str) or not isinstance(row["delivery"], str) for key, row in rows.items()):
        raise _unreadable(name, "a row without a name")
    return rows


def _unreadable(name: str, why: str) -> UserError:
    return UserError(f"{name}: is not the table of a delivery ({why}); move it away, and the files that it told of too")


def to_csv(rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the rows as people read them; a text that a spreadsheet would take for a formula gets a `'` before it."""
    own = sorted({name for row in rows.values() for name in row if name.startswith("x_")})
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FOR_PEOPLE, *own])
    for name in sorted(rows):
        writer.writerow([_cell(rows[name].get(column)) for column in (*_FOR_PEOPLE, *own)])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value

"""Metadata as a file for people: the suffix of its name says which kind.

    Arrow table + path --> write_rows() --> .parquet, .csv, .tsv, .jsonl or .xlsx

A list or a struct stands in a cell of a CSV as JSON text, and null is an empty cell. A text that a spreadsheet would
take for a formula has a ' before it. JSONL has null where a number is none that JSON knows (NaN, infinity).
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import JobError
from sdbatch.report.workbook import write_workbook, writer

_BATCH_ROWS = 4096
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins so for a formula, which may fetch and send things."""
UNREADABLE: Final = "(a value that cannot be shown)"
_VALUE_FAULTS = (ValueError, OverflowError, LookupError, OSError, pa.ArrowException)
"""What Arrow raises for a value that Python does not have, such as a date of the year 12000."""


def write_rows(table: pa.Table, path: Path) -> None:
    """Write rows to a file, which is either there whole or not at all.

    Raises:
        JobError: When the suffix is none of those above, or the file cannot be written.
    """
    check_target(path)
    write = _WRITERS[path.suffix.lower()]
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write(table, fresh)
        fresh.replace(path)
    except OSError as error:
        raise JobError(f"--to {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # of a disk that takes no writing, also where there is no such file
            fresh.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Refuse a file that rows cannot be written to, before they are read.

    Raises:
        JobError: When the suffix is none that is known, or a folder is there, or no folder to put it in.
    """
    if path.suffix.lower() not in _WRITERS:
        raise JobError(f"--to {path}: the suffix {path.suffix!r} is none of {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".xlsx":
        writer()
    if path.is_dir():
        raise JobError(f"--to {path}: is a folder")
    if not path.parent.is_dir():
        raise JobError(f"--to {path}: there is no folder {path.parent}")


def python_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows as Python values; one that Python does not have is told by `UNREADABLE`."""
    columns = [python_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def python_values(column: pa.Array) -> list[Any]:
    """Return an array's values; one that Python does not have is told by `UNREADABLE`."""
    try:
        return list(column.to_pylist())
    except _VALUE_FAULTS:
        return [_value_or_mark(scalar) for scalar in column]


def _value_or_mark(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _VALUE_FAULTS:
        return UNREADABLE


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, str(path), compression="zstd")


def _write_cells(delimiter: str) -> Callable[[pa.Table, Path], None]:
    def write(table: pa.Table, path: Path) -> None:
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(table.column_names)
            for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                writer.writerows(map(_cell, row.values()) for row in python_rows(batch))

    return write


def _write_xlsx(table: pa.Table, path: Path) -> None:
    batches = table.to_batches(max_chunksize=_BATCH_ROWS)
    write_workbook(table.column_names, (row for batch in batches for row in python_rows(batch)), _cell, path)


def _write_json_lines(table: pa.Table, path: Path) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
            file.writelines(_json(row) + "\n" for row in python_rows(batch))


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return _json(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """Return a value of JSON's own kinds."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


_WRITERS: Final[dict[str, Callable[[pa.Table, Path], None]]] = {
    ".parquet": _write_parquet,
    ".csv": _write_cells(","),
    ".tsv": _write_cells("\t"),
    ".jsonl": _write_json_lines,
    ".xlsx": _write_xlsx,
}

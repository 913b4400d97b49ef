"""CSV, TSV, JSONL or Parquet become a manifest.

    file --> rows as text or JSON --> renamed, typed by the schema, numbered --> Parquet shards

Prompts are brought to Unicode normal form NFC here, so that the same text typed on two systems is one prompt.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import JobError, ManifestError, Problem
from sdbatch.manifest.schema import COLUMNS

ROW_GROUP_ROWS = 4096
_TEXTS = ("prompt", "negative_prompt")


def build_shards(
    source: Path,
    folder: Path,
    *,
    shards: int = 1,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    id_format: str | None = None,
) -> tuple[int, list[Path]]:
    """Write a manifest folder.

    Args:
        source: `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        folder: Gets `part-00000.parquet`, ...; shards of an earlier build there are removed.
        shards: Number of files; rows are split evenly, in order.
        rename: The manifest's name of a column, by the source's name.
        drop: Columns of the source to leave out.
        id_format: Format of the ids that are made where the source has no column `id`: `{row}` is the row number, as in
            `scene-{row:05d}`.

    Returns:
        The number of rows and the files.

    Raises:
        ManifestError: Naming every row whose value does not fit its column.
    """
    rename = rename or {}
    dropped = set(drop)
    problems: list[Problem] = []
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, row in enumerate(_read_safely(source)):
        seen |= row.keys()
        named = _named(row, rename, dropped, source, number)
        if "id" not in named and id_format:
            named["id"] = _format_id(id_format, number)
        rows.append({name: _typed(name, value, source, number, problems) for name, value in named.items()})
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["id"]
    for name in names:
        if name not in COLUMNS and not name.startswith("x_"):
            message = "is not a column of a manifest; rename it, drop it, or let it start with x_"
            problems.append(Problem(shard=str(source), row=None, column=name, value=None, message=message))
    for name in sorted((rename.keys() | dropped) - seen) if rows else ():
        message = "is to be renamed or dropped, and the file has no such column"
        problems.append(Problem(shard=str(source), row=None, column=name, value=None, message=message))
    if problems:
        raise ManifestError(problems)
    table = pa.table({name: _column(name, [row.get(name) for row in rows], source) for name in names})
    return len(rows), _write(table, folder, shards)


def _read_safely(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; an error about the file as a whole names the file."""
    try:
        yield from _read(source)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise _fault(source, None, None, None, f"cannot be read: {error}") from error


def _read(source: Path) -> Iterator[dict[str, Any]]:
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        yield from pq.ParquetFile(source).read(use_threads=False).to_pylist()
    elif suffix in {".jsonl", ".ndjson"}:
        with source.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if line.strip():
                    yield _json_row(line, source, number)
    elif suffix in {".csv", ".tsv"}:
        # A tab-separated file quotes nothing, as spreadsheets and data sets write it.
        dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
        with source.open(encoding="utf-8-sig", newline="") as lines:
            yield from _cells(csv.reader(lines, strict=True, **dialect), source)
    else:
        raise _fault(source, None, None, None, f"has the suffix {suffix!r}; taken are .csv, .tsv, .jsonl and .parquet")


def _cells(lines: Iterator[list[str]], source: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of cells; an empty cell is null, and every row is as long as the header."""
    header = next(lines, [])
    if doubled := {name for name in header if header.count(name) > 1}:
        raise _fault(source, None, min(doubled), None, "appears twice in the header")
    for number, cells in enumerate(lines):
        if not cells:
            continue
        if len(cells) != len(header):
            raise _fault(source, number, None, None, f"has {len(cells)} cells, the header {len(header)}; quote commas")
        yield {name: value or None for name, value in zip(header, cells, strict=True)}


def _json_row(line: str, source: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _fault(source, number, None, None, f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise _fault(source, number, None, None, "is not a JSON object")
    return row


def _named(
    row: Mapping[str, Any], rename: Mapping[str, str], dropped: set[str], source: Path, number: int
) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in row.items():
        if name in dropped:
            continue
        target = rename.get(name, name)
        if target in named:
            raise _fault(source, number, target, None, "is the name of two columns after renaming; drop one")
        named[target] = value
    return named


def _format_id(id_format: str, number: int) -> str:
    try:
        return id_format.format(row=number)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise JobError(f"id format {id_format!r}: {error}; it may hold {{row}}, as in 'scene-{{row:05d}}'") from error


def _typed(name: str, value: Any, source: Path, number: int, problems: list[Problem]) -> Any:
    """Bring a value to its column's type; text cells of a CSV become numbers or lists."""
    kind = COLUMNS.get(name)
    if value is None or kind is None:
        return value
    try:
        return _converted(name, value, kind)
    except (TypeError, ValueError, OverflowError, RecursionError, pa.ArrowException):
        message = f"is not of type {kind}"
        problems.append(Problem(shard=str(source), row=number, column=name, value=ascii(value)[:80], message=message))
        return None


def _converted(name: str, value: Any, kind: pa.DataType) -> Any:
    """Return a value of an Arrow type. Raises ValueError and its like when it does not fit."""
    if pa.types.is_string(kind):
        text = value if isinstance(value, str) else json.dumps(value)
        text.encode()  # refuses lone surrogates
        return unicodedata.normalize("NFC", text) if name in _TEXTS else text
    if pa.types.is_integer(kind):
        return pa.scalar(_integer(value), kind).as_py()  # refuses what the type cannot hold
    if pa.types.is_floating(kind):
        return float(value)
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else [value]
    return pa.scalar(value, kind).as_py()


def _integer(value: Any) -> int:
    try:
        number = int(value)
    except ValueError:
        number = int(float(value))  # a spreadsheet's 64.0
    if float(number) != float(value):
        raise ValueError(value)
    return number


def _column(name: str, values: list[Any], source: Path) -> pa.Array:
    if name in COLUMNS:
        return pa.array(values, type=COLUMNS[name])
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise _fault(source, None, name, None, f"holds values of several types: {error}") from error


def _write(table: pa.Table, folder: Path, shards: int) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder}: cannot be made: {error.strerror}") from error
    files = []
    for number in range(shards):
        start, end = (table.num_rows * edge // shards for edge in (number, number + 1))
        file = folder / f"part-{number:05d}.parquet"
        pq.write_table(table.slice(start, end - start), file, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        files.append(file)
    for old in folder.glob("part-*.parquet"):
        if old not in files:
            old.unlink()
    return files


def _fault(source: Path, row: int | None, column: str | None, value: str | None, message: str) -> ManifestError:
    return ManifestError([Problem(shard=str(source), row=row, column=column, value=value, message=message)])

"""Rows of text tables: CSV, TSV and JSONL, each with the line it begins on.

    file --> lines, bounded --> read_rows() --> (line, {column: value})

Nothing is ever read whole: a line, a row and a header have bounds, and a table may be as long as it likes.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from sdbatch.canonical import parse_json
from sdbatch.errors import ManifestError, Problem
from sdbatch.manifest.schema import COLUMNS_MAX
from sdbatch.manifest.values import TEXT_BYTES_MAX

ROW_CHARS_MAX = 4 << 20
"""Longest row, all its lines together."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')

Row = tuple[int, dict[str, Any]]
Tell = Callable[[Problem], None]


def read_rows(source: Path, tell: Tell) -> Iterator[Row]:
    """Yield the rows of a table, each with the line it begins on, from 1.

    Args:
        source: `.csv`, `.tsv`, `.jsonl` or `.ndjson`.
        tell: Takes what is wrong with a single row; that row is left out.

    Raises:
        ManifestError: When the file cannot be read as a table.
    """
    read = _READERS.get(source.suffix.lower())
    if read is None:
        raise fault(source, f"has the suffix {source.suffix.lower()!r}; taken are .csv, .tsv, .jsonl and .parquet")
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            yield from read(file, source, tell)
    except UnicodeDecodeError as error:
        raise fault(source, f"is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise fault(source, f"cannot be read: {error}") from error


def fault(source: Path, message: str, column: str | None = None) -> ManifestError:
    """Return an error about a table as a whole."""
    return ManifestError([Problem(shard=str(source), row=None, column=column, value=None, message=message)])


def _csv_rows(file: TextIO, source: Path, tell: Tell) -> Iterator[Row]:
    return _cells(_Lines(file, source), source, tell, {})


def _tsv_rows(file: TextIO, source: Path, tell: Tell) -> Iterator[Row]:
    """Read a table as Excel and pandas write it, with quoted cells; else as data sets have it, where nothing is quoted.

    A quote that no cell of Excel's could have tells the one from the other, so the file is read through once before.
    """
    dialect: dict[str, Any] = {"dialect": "excel-tab"}
    try:
        lines = _Lines(file, source)
        for _ in csv.reader(lines, strict=True, **dialect):
            lines.row_chars = 0
    except csv.Error:
        file.seek(0)
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        lines = _Lines(file, source)
        for number, line in enumerate(lines, 1):
            lines.row_chars = 0
            if any(_QUOTED.fullmatch(cell) for cell in line.rstrip("\r\n").split("\t")):
                message = "has a quoted cell, and other cells hold quotes that are not doubled; quote every such cell"
                raise fault(source, f"{message} (line {number})") from None
    file.seek(0)
    return _cells(_Lines(file, source), source, tell, dialect)


def _cells(lines: _Lines, source: Path, tell: Tell, dialect: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of a table of cells; an empty cell is null, and every row is as long as the header."""
    reader = csv.reader(lines, strict=True, **dialect)
    line = 1
    try:
        header = next(reader, [])
        _check_header(header, source)
        number, line = 0, reader.line_num + 1
        for cells in reader:
            lines.row_chars = 0
            if len(cells) == len(header):
                yield line, {name: value or None for name, value in zip(header, cells, strict=True)}
            elif cells:
                message = f"has {len(cells)} cells, the header {len(header)}; quote commas"
                tell(Problem(shard=str(source), row=number, column=None, value=None, message=message, line=line))
            number += bool(cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise fault(source, f"cannot be read: {error} (the row that begins on line {line})") from error


def _check_header(header: list[str], source: Path) -> None:
    if len(header) > COLUMNS_MAX:
        raise fault(source, f"has {len(header)} columns, over {COLUMNS_MAX}")
    for name, count in Counter(header).items():
        if count > 1:
            raise fault(source, "appears twice in the header", column=name or "''")
        if len(name) > TEXT_BYTES_MAX:
            raise fault(source, f"has a header with a name of {len(name)} characters, over {TEXT_BYTES_MAX}")


def _json_rows(file: TextIO, source: Path, tell: Tell) -> Iterator[Row]:
    lines = _Lines(file, source)
    number = 0
    for line, text in enumerate(lines, 1):
        lines.row_chars = 0
        if not text.strip():
            continue
        message = None
        try:
            row = parse_json(text)
            message = None if isinstance(row, dict) else "is not a JSON object"
        except RecursionError:
            message = "is not JSON: it is nested too deeply"
        except ValueError as error:
            message = f"is not JSON: {error}"
        if message is None and len(row) > COLUMNS_MAX:
            message = f"has {len(row)} columns, over {COLUMNS_MAX}"
        if message is None:
            yield line, row
        else:
            tell(Problem(shard=str(source), row=number, column=None, value=None, message=message, line=line))
        number += 1


class _Lines:
    """The lines of a file, none of them longer than a row may be, nor several lines of one row.

    Attributes:
        row_chars: Characters of the row so far; its reader sets it back at the end of each row.
    """

    def __init__(self, file: TextIO, source: Path) -> None:
        self._file = file
        self._source = source
        self._number = 0
        self.row_chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(ROW_CHARS_MAX + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self.row_chars += len(line)
        if self.row_chars > ROW_CHARS_MAX:
            raise fault(self._source, f"has a row of over {ROW_CHARS_MAX} characters (line {self._number})")
        return line


_READERS: Final[dict[str, Callable[[TextIO, Path, Tell], Iterator[Row]]]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
}

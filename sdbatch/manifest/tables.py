"""Rows of tables: CSV, TSV, JSONL and workbooks, each with the line it begins on.

    file --> open_table() --> Table --> rows(): (line, {column: value})

Nothing is ever read whole: a line, a row and a header have bounds, and a table may be as long as it likes.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from sdbatch.canonical import parse_json
from sdbatch.errors import ManifestError, Problem
from sdbatch.manifest.encodings import NotReadable, text_encoding
from sdbatch.manifest.schema import COLUMNS_MAX
from sdbatch.manifest.separators import SAMPLE_CHARS, SPOKEN, cell_separator, said_separator
from sdbatch.manifest.values import TEXT_BYTES_MAX
from sdbatch.manifest.workbook import NotASheet, opened_sheet
from sdbatch.types import RefusedValue

ROW_CHARS_MAX = 4 << 20
"""Longest row, all its lines together."""
CELLS_MAX: Final = 1 << 14
"""Cells of a header, those without a name too: as many as a sheet has columns."""
WORKBOOKS: Final = (".xlsx", ".xlsm")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_VISIBLE: Final = re.compile(r"[^\s\u00ad\u200b-\u200f\u2060\ufeff]")
"""Word processors and web pages leave characters without width in cells that look empty."""
_TEXT_FORMULA: Final = re.compile(r'="((?:[^"]|"")*)"')
"""How exports write a number so that Excel keeps it as it is, such as `="00123"`: every spreadsheet shows the text."""
_FORMULA_ERROR: Final = re.compile(
    r"#(?:N/[ABD]|NV|(?:NAME|NOM|NOME|¿NOMBRE|NAAM)\?"
    r"|¡?(?:REF|VALUE|DIV/0|NUM|NULL|SPILL|CALC|FIELD|BLOCKED|CONNECT|UNKNOWN|ERROR|BEZUG|WERT|ZAHL"
    r"|VALEUR|NOMBRE|NUL|VALOR|NULO|RIF|VALORE|VERW|WAARDE|GETAL|DEEL/0)!)"
)
"""What spreadsheets save to a CSV where a formula failed, as those in English, German, French, Spanish, Italian,
Portuguese and Dutch write it."""
NOT_READ: Final = {
    ".xls": "save it as .xlsx",
    ".ods": "save it as .xlsx",
    ".xlsb": "save it as .xlsx",
    ".numbers": "export it as .xlsx or CSV",
    ".json": "write one JSON object a line, as .jsonl",
    ".yaml": "a brief is built by `sdbatch brief build`",
    ".yml": "a brief is built by `sdbatch brief build`",
}
"""What to do with files that are not read as tables, by suffix."""

Row = tuple[int, dict[str, Any]]
Tell = Callable[[Problem], None]


@dataclass(slots=True, kw_only=True)
class Table:
    """A table that is read once, from its first row to its last.

    Attributes:
        path: The file.
        label: What messages call it.
        sheet: Sheet of a workbook; None for the only one.
        is_known: Whether a name is one that its columns are expected to have.
        has_cells: Whether its values are what a person typed into cells.
        header: Names of its columns, known as soon as the first row is; a JSONL file has none.
        notes: What its owner should know of how it is read.
    """

    path: Path
    label: str
    sheet: str | None = None
    is_known: Callable[[str], bool] = lambda _: False
    has_cells: bool = True
    header: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rows(self, tell: Tell) -> Iterator[Row]:
        """Yield the rows, each with the line it begins on, from 1.

        Args:
            tell: Takes what is wrong with a single row; that row is left out.

        Raises:
            ManifestError: When the file cannot be read as a table.
        """
        suffix = self.path.suffix.lower()
        read = _READERS.get(suffix)
        if read is None:
            taken = "taken are .csv, .tsv, .txt, .xlsx, .jsonl and .parquet"
            hint = f"; {NOT_READ[suffix]}" if suffix in NOT_READ else ""
            raise fault(self.label, f"has the suffix {suffix!r}; {taken}{hint}")
        try:
            yield from read(self, tell)
        except (NotReadable, NotASheet) as error:
            raise fault(self.label, str(error)) from error
        except UnicodeDecodeError as error:
            raise fault(self.label, f"is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except (OSError, csv.Error) as error:
            raise fault(self.label, f"cannot be read: {error}") from error


def open_table(path: Path, *, label: str | None = None, sheet: str | None = None, **more: Any) -> Table:
    """Return a table that is to be read.

    Args:
        path: `.csv`, `.tsv`, `.txt`, `.xlsx`, `.jsonl` or `.ndjson`.
        label: What messages call it; its path by default.
        sheet: Sheet of a workbook, by name.
        **more: Further attributes of `Table`.

    Raises:
        ManifestError: When a sheet is named and the file has none.
    """
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in WORKBOOKS:
        raise fault(label or str(path), f"has no sheets; only a workbook (.xlsx) has the sheet {sheet!r}")
    has_cells = suffix not in {".jsonl", ".ndjson"}
    return Table(path=path, label=label or str(path), sheet=sheet, has_cells=has_cells, **more)


def fault(label: str, message: str, column: str | None = None) -> ManifestError:
    """Return an error about a table as a whole."""
    return ManifestError([Problem(shard=label, row=None, column=column, value=None, message=message)])


def _csv_rows(table: Table, tell: Tell) -> Iterator[Row]:
    encoding, note = text_encoding(table.path)
    table.notes.extend([note] if note else [])
    with table.path.open(encoding=encoding, newline="") as file:
        first = file.readline(16)
        said = said_separator(first)
        num_before = 1 if said else 0
        start = file.tell() if said else 0
        file.seek(start)
        separator = said or cell_separator(file.read(SAMPLE_CHARS), table.is_known)
        file.seek(start)
        if separator != ",":
            table.notes.append(f"has {SPOKEN.get(separator, separator)} between its cells")
        if separator == "\t":
            yield from _tab_rows(file, table, tell, num_before)
        else:
            yield from _cells(_Lines(file, table.label), table, tell, {"delimiter": separator}, num_before)


def _tsv_rows(table: Table, tell: Tell) -> Iterator[Row]:
    encoding, note = text_encoding(table.path)
    table.notes.extend([note] if note else [])
    with table.path.open(encoding=encoding, newline="") as file:
        yield from _tab_rows(file, table, tell, 0)


def _tab_rows(file: TextIO, table: Table, tell: Tell, num_before: int) -> Iterator[Row]:
    """Read a table as Excel and pandas write it, with quoted cells; else as data sets have it, where nothing is quoted.

    A quote that no cell of Excel's could have tells the one from the other, so the file is read through once before.
    """
    start = file.tell()
    dialect: dict[str, Any] = {"dialect": "excel-tab"}
    try:
        lines = _Lines(file, table.label)
        for _ in csv.reader(lines, strict=True, **dialect):
            lines.row_chars = 0
    except csv.Error:
        file.seek(start)
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        lines = _Lines(file, table.label)
        for number, line in enumerate(lines, 1 + num_before):
            lines.row_chars = 0
            if any(_QUOTED.fullmatch(cell) for cell in line.rstrip("\r\n").split("\t")):
                message = "has a quoted cell, and other cells hold quotes that are not doubled; quote every such cell"
                raise fault(table.label, f"{message} (line {number})") from None
    file.seek(start)
    yield from _cells(_Lines(file, table.label), table, tell, dialect, num_before)


def _cells(lines: _Lines, table: Table, tell: Tell, dialect: dict[str, Any], num_before: int) -> Iterator[Row]:
    """Yield the rows of a text of cells."""
    reader = csv.reader(lines, strict=True, **dialect)
    line = 1 + num_before

    def rows() -> Iterator[tuple[int, list[Any]]]:
        nonlocal line
        for cells in reader:
            lines.row_chars = 0
            if cells:
                yield line, cells
            line = reader.line_num + 1 + num_before

    try:
        is_comma = reader.dialect.delimiter == ","
        hint = "quote commas, without a blank before the quote" if is_comma else "quote cells that hold the separator"
        yield from _named_cells(rows(), table, tell, hint)
    except csv.Error as error:
        raise fault(table.label, f"cannot be read: {error} (the row that begins on line {line})") from error


def _sheet_rows(table: Table, tell: Tell) -> Iterator[Row]:
    with opened_sheet(table.path, table.sheet) as (title, rows, notes):
        table.label = f"{table.label} [{title}]"
        yield from _named_cells(rows, table, tell, None)
        table.notes.extend(notes)


def _named_cells(rows: Iterator[tuple[int, list[Any]]], table: Table, tell: Tell, hint: str | None) -> Iterator[Row]:
    """Yield rows with the names of their columns; an empty cell is null, and a row of empty cells is none.

    Args:
        rows: Line and cells of each row, the header first.
        table: The table.
        tell: Takes what is wrong with a single row.
        hint: What to do where a row has other than the header's number of cells; None where a short row has empty cells
            at its end, which a text would have written out.
    """
    header = _header(rows, table.label)
    table.header = [name for name in header if name]
    named = [(place, name) for place, name in enumerate(header) if name]
    number = 0
    for line, cells in rows:
        values = [_filled(cell) for cell in cells]
        while values and values[-1] is None:
            values.pop()
        if not values:
            continue
        message = _shape_problem(values, len(cells), header, hint)
        if message is None and _names(values) == header:
            message = "repeats the header, as tables do that were joined; take this row out"
        if message is None:
            num_cells = len(values)
            yield line, {name: values[place] if place < num_cells else None for place, name in named}
        else:
            tell(Problem(shard=table.label, row=number, column=None, value=None, message=message, line=line))
        number += 1


def _header(rows: Iterator[tuple[int, list[Any]]], label: str) -> list[str]:
    """Return the names in the first row that is filled, "" for a column without one.

    Raises:
        ManifestError: When no row is filled, or there are too many columns.
    """
    for _, cells in rows:
        if len(cells) > CELLS_MAX:
            raise fault(label, f"has {len(cells)} columns, over {CELLS_MAX}")
        header = _names(cells)
        while header and not header[-1]:
            header.pop()
        if header:
            _check_header(header, label)
            return header
    raise fault(label, "is empty; the first row that is filled names the columns")


def _names(cells: list[Any]) -> list[str]:
    return ["" if name is None else str(name).strip() for name in cells]


def _filled(cell: Any) -> Any:
    """Return what a cell holds, None for nothing and for what cannot be seen."""
    if not isinstance(cell, str):
        return cell
    if cell[:2] == '="' and (formula := _TEXT_FORMULA.fullmatch(cell)):
        cell = formula[1].replace('""', '"')
    if not _VISIBLE.search(cell):
        return None
    if cell[0] == " " and _QUOTED.fullmatch(cell.strip()):
        return RefusedValue("has a blank before its quotes, so that they count as text; leave the blank out")
    is_error = cell[0] == "#" and _FORMULA_ERROR.fullmatch(cell)
    return RefusedValue(f"holds the error {cell} of a formula") if is_error else cell


def _shape_problem(values: list[Any], num_cells: int, header: list[str], hint: str | None) -> str | None:
    """Return why the cells of a row do not fit its header, None when they do."""
    has = f"has {num_cells} cell{'' if num_cells == 1 else 's'}, the header {len(header)}"
    if len(values) > len(header) == 1:
        way_out = "take out what stands above the names of the columns"
        return f"{has} ({header[0]!r:.60}); {way_out}{f', or {hint}' if hint else ''}"
    if len(values) > len(header):
        return f"{has}; {hint or 'every column needs a name in the first row that is filled'}"
    if hint and num_cells < len(header):
        return f"{has}; {hint}"
    unnamed = next((place for place, value in enumerate(values) if value is not None and not header[place]), None)
    return None if unnamed is None else f"has a value in column {unnamed + 1}, which has no name in the header"


def _check_header(header: list[str], label: str) -> None:
    if len(header) > COLUMNS_MAX:
        raise fault(label, f"has {len(header)} columns, over {COLUMNS_MAX}")
    for name, count in Counter(name for name in header if name).items():
        if count > 1:
            raise fault(label, "appears twice in the header", column=name)
        if len(name) > TEXT_BYTES_MAX:
            raise fault(label, f"has a header with a name of {len(name)} characters, over {TEXT_BYTES_MAX}")


def _json_rows(table: Table, tell: Tell) -> Iterator[Row]:
    encoding, note = text_encoding(table.path, takes_western=False)
    table.notes.extend([note] if note else [])
    with table.path.open(encoding=encoding, newline="") as file:
        yield from _json_objects(_Lines(file, table.label), table, tell)


def _json_objects(lines: _Lines, table: Table, tell: Tell) -> Iterator[Row]:
    number = 0
    for line, text in enumerate(lines, 1):
        lines.row_chars = 0
        if not text.strip():
            continue
        message = None
        if number == 0 and (text.strip() in {"[", "{"} or text.lstrip().startswith("[{")):
            raise fault(table.label, "is one JSON text over several lines or in a list; write one object a line")
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
            tell(Problem(shard=table.label, row=number, column=None, value=None, message=message, line=line))
        number += 1


class _Lines:
    """The lines of a file, none of them longer than a row may be, nor several lines of one row.

    Attributes:
        row_chars: Characters of the row so far; its reader sets it back at the end of each row.
    """

    def __init__(self, file: TextIO, label: str) -> None:
        self._file = file
        self._label = label
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
            raise fault(self._label, f"has a row of over {ROW_CHARS_MAX} characters (line {self._number})")
        return line


_READERS: Final[dict[str, Callable[[Table, Tell], Iterator[Row]]]] = {
    ".csv": _csv_rows,
    ".txt": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    **dict.fromkeys(WORKBOOKS, _sheet_rows),
}

TABLES: Final = (*_READERS, ".parquet")
"""Suffixes of tables that a manifest can be built from."""

"""Rows of a sheet of an Excel workbook, streamed.

    .xlsx --> sheet by name --> look(): what would be read wrongly --> opened_sheet() --> (row of the sheet, values)

A workbook comes from a stranger: it is a zip of XML, so what it expands to is bounded before any of it is read.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from sdbatch.errors import JobError
from sdbatch.manifest.sheet_xml import COMPUTED_ON_LOAD, Seen, look
from sdbatch.manifest.values import FLOAT_EXACT_MAX
from sdbatch.types import RefusedValue

ROWS_MAX: Final = 1 << 20
"""Rows that a sheet can have."""
PART_BYTES_MAX: Final = 4 << 30
TEXTS_BYTES_MAX: Final = 256 << 20
"""The table of all texts is the one part that is held in memory."""
OTHER_BYTES_MAX: Final = 64 << 20
SHOWN_DIGITS: Final = 15
"""Digits of a number that spreadsheets show, and save to a CSV."""
DIGITS_KEPT_BELOW: Final = 10**SHOWN_DIGITS
"""Excel rounds longer whole numbers as they are typed in."""
_TOO_LONG: Final = "holds a number of over 15 digits, of which a sheet keeps 15; write it as text"
_HEAD_BYTES: Final = 4096
_STRICT: Final = b"http://purl.oclc.org/ooxml/spreadsheetml/main"
_DIGITS_FORMAT: Final = re.compile(r'(?:"[^";]*"|\\[^;]|[-/:() ]|0)+(?=;|$)')
"""A format that fills a number up with zeros, perhaps with other characters between or before them, as Excel has it for
postal codes: `00000`, `00000-0000`, `"D-"00000`."""
_NOT_SHOWN: Final = re.compile(r"\[(?:\$-[^]]*|[A-Za-z]+[0-9]*)\]|_.")
"""What a format says of language, colour and width."""
_ESCAPED: Final = re.compile(
    r"_x(?:000[Dd]_\n?|(?P<control>00[01][0-9A-Fa-f])_|(?P<line>005[Ff])_(?=x[0-9A-Fa-f]{4}_))"
)
"""A line end, a control character such as the line break of a text box, which XML cannot hold, or the underscore of a
text that looks like one of them: Excel writes `hero_x1024_v2` as `hero_x005F_x1024_v2`."""
_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ParseError,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
)
"""What openpyxl raises where a workbook is not as it should be."""


class NotASheet(ValueError):
    """A workbook, or a sheet of it, cannot be read; the text follows the file's name in a message."""


@contextmanager
def opened_sheet(source: Path, name: str | None) -> Iterator[tuple[str, Iterator[tuple[int, list[Any]]], list[str]]]:
    """Open a sheet; yield its name, its rows (row of the sheet, values) and what to say of them once they are read.

    Args:
        source: The workbook.
        name: The sheet; None for the only one that holds something.

    Raises:
        NotASheet: When it cannot be read, or has several sheets and none was named.
    """
    with _faults_named():
        book, sheet, seen = _opened(source, name)
    try:
        if seen.uncomputed:
            message = "holds a formula without its value; open it in Excel or LibreOffice, save it"
            raise NotASheet(f"sheet {sheet.title!r}: {seen.uncomputed} {message}")
        notes = [f"{seen.num_hidden} hidden rows are read as the others are"] if seen.num_hidden else []
        yield sheet.title, _rows(sheet, seen, notes), notes
    finally:
        book.close()


def _opened(source: Path, name: str | None) -> tuple[Any, Any, Seen]:
    """Return a workbook, one of its sheets, and what was seen in that."""
    openpyxl = _openpyxl()
    _refuse_form(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that do not matter here, such as lists of choices
        book = openpyxl.load_workbook(source, read_only=True, data_only=True, keep_links=False)
        try:
            sheet = _chosen(book, name)
            with zipfile.ZipFile(source) as archive:
                with archive.open(_part_of(sheet)) as part:
                    seen = look(part)
                if seen.zero and _is_computed_on_load(archive):
                    seen.uncomputed = seen.uncomputed or seen.zero
            sheet.reset_dimensions()  # programs write wrong ones, and rows would be cut off
        except BaseException:
            book.close()
            raise
    return book, sheet, seen


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        message = (
            "workbooks are read by openpyxl, which is not installed; pip install 'sdbatch[sheets]', or save as CSV"
        )
        raise JobError(message) from error
    return openpyxl


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except NotASheet:
        raise
    except _FAULTS as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise NotASheet(
            f"cannot be read as a workbook (.xlsx): {said[:200]}; is it one, without a password?"
        ) from error


def _refuse_form(source: Path) -> None:
    """Refuse a workbook of the strict form, and one whose parts would take too much or define entities without end."""
    with zipfile.ZipFile(source) as archive:
        for part in archive.infolist():
            is_texts, is_sheet = part.filename.endswith("sharedStrings.xml"), "/worksheets/" in part.filename
            most = TEXTS_BYTES_MAX if is_texts else PART_BYTES_MAX if is_sheet else OTHER_BYTES_MAX
            is_read = part.filename.endswith((".xml", ".rels"))
            if is_read and part.file_size > most:
                raise NotASheet(f"has a part {part.filename!r:.80} of {part.file_size} bytes, over {most}")
            if is_read:
                with archive.open(part) as file:
                    head = file.read(_HEAD_BYTES)
                if b"<!DOCTYPE" in head:
                    raise NotASheet(f"has a part {part.filename!r:.80} with a DOCTYPE, which no workbook has")
                if _STRICT in head:  # openpyxl (3.1.5) finds no sheet in it
                    raise NotASheet("is a Strict Open XML Spreadsheet; save it as Excel Workbook (.xlsx)")


def _chosen(book: Any, name: str | None) -> Any:
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if name is not None:
        found = sheets.get(name) or next((sheets[one] for one in sheets if one.casefold() == name.casefold()), None)
        if found is None:
            raise NotASheet(f"has no sheet {name!r}; it has {', '.join(sheets) or 'none'}")
        return found
    full = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible" and _holds_something(sheet)]
    if len(full) > 1:
        names = ", ".join(sheet.title for sheet in full)
        raise NotASheet(f"has {len(full)} sheets ({names:.200}); name one, with --sheet or `sheet:`")
    if not full:
        raise NotASheet("has no sheet that holds anything")
    return full[0]


def _holds_something(sheet: Any) -> bool:
    return any(value is not None for row in sheet.iter_rows(max_row=1000, values_only=True) for value in row)


def _part_of(sheet: Any) -> str:
    return str(sheet._worksheet_path).lstrip("/")  # noqa: SLF001 -- openpyxl has no other name for it


def _is_computed_on_load(archive: zipfile.ZipFile) -> bool:
    """Whether a workbook leaves its formulas to the next program that opens it.

    XlsxWriter, with which pandas writes, puts 0 where their values are to stand. openpyxl (3.1.5) takes every workbook
    for one of these.
    """
    parts = [name for name in archive.namelist() if name.endswith("/workbook.xml")]
    return any(COMPUTED_ON_LOAD.search(archive.read(name)) for name in parts)


def _rows(sheet: Any, seen: Seen, notes: list[str]) -> Iterator[tuple[int, list[Any]]]:
    bound = 0
    with _faults_named():
        for number, cells in enumerate(sheet.iter_rows(), 1):
            if number > ROWS_MAX:
                raise NotASheet(f"has over {ROWS_MAX} rows")
            values = [_value(cell) for cell in cells]
            while values and values[-1] is None:
                values.pop()
            if not values:
                continue
            if not bound:
                bound = len(values)
                _refuse_merged(seen.merged, number, bound)
                notes.extend(_hidden_noted(values, seen.hidden_columns))
            yield number, values


def _hidden_noted(header: list[Any], hidden: list[tuple[int, int]]) -> list[str]:
    """Return what to say of columns that are hidden, by their names; columns without a name do not count."""
    places = {place for first, last in hidden for place in range(first, min(last, len(header)) + 1)}
    names = [str(name) for place, name in enumerate(header, 1) if name is not None and place in places]
    return [f"hidden columns are read as the others are: {', '.join(names):.200}"] if names else []


def _refuse_merged(merged: list[tuple[int, int, int, int, str]], header: int, num_columns: int) -> None:
    """Refuse cells that are one: all but the first of them are empty in the file, and would be read as such."""
    for column, _, _, last_row, name in merged:
        if last_row > header and column <= num_columns:
            message = f"the cells {name} are merged, and only the first holds their value; unmerge them and fill each"
            raise NotASheet(message)


def _value(cell: Any) -> Any:
    """Return what a cell shows, as far as it is not a matter of taste: 00012 is a text, 12.0 is 12."""
    value = cell.value
    if value is None:
        return None
    if isinstance(value, str):
        if cell.data_type == "e":
            return RefusedValue(f"holds the error {value} of a formula")
        return _unescaped(value) if "_x00" in value else value
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        value = float(f"{value:.{SHOWN_DIGITS}g}")  # =0.28*100 shows 28 and holds 28.000000000000004
        if value.is_integer():
            if abs(value) >= DIGITS_KEPT_BELOW:
                return RefusedValue(_TOO_LONG)
            value = int(value)
    if isinstance(value, int):
        # Programs write all digits of a float that is whole, also where the number they were given had others.
        if abs(value) >= FLOAT_EXACT_MAX:
            return RefusedValue(_TOO_LONG)
        return _filled_up(value, cell.number_format) if cell.number_format != "General" and value >= 0 else value
    if isinstance(value, dt.datetime):
        return value.date() if value.time() == dt.time() else value
    return value


def _filled_up(value: int, number_format: str) -> int | str:
    """Return a number as a format of digits shows it; the number itself where the format is another one."""
    found = _DIGITS_FORMAT.match(_NOT_SHOWN.sub("", number_format))
    places = re.findall(r'"[^"]*"|\\.|.', found[0]) if found else []
    num_zeros = places.count("0")
    if num_zeros < 2:
        return value
    digits = str(value).zfill(num_zeros)
    num_before = len(digits) - num_zeros  # digits for which the format has no place stand at the first one
    shown = iter([digits[: num_before + 1], *digits[num_before + 1 :]])
    return "".join(next(shown) if place == "0" else place.strip('"').removeprefix("\\") for place in places)


def _unescaped(text: str) -> str:
    """Return a text with the characters that a workbook writes as `_x000B_`; a line end is LF."""
    return _ESCAPED.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    if found["control"]:
        return chr(int(found["control"], 16))
    return "_" if found["line"] else "\n"

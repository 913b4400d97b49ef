"""Metadata as a workbook (.xlsx): text stays text, whatever it begins with.

A text that begins with = would be a formula, and a prompt or a title of a stranger's could so fetch and send things.
Numbers of more digits than a spreadsheet keeps (15) stand as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile

from sdbatch.errors import JobError

ROWS_MAX: Final = 1_048_575
"""Rows that a sheet has below its headings."""
CHARACTERS_MAX: Final = 32_767
"""Characters of one cell."""
NUMBER_MAX: Final = 10**15
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write_workbook(names: list[str], rows: Iterable[Mapping[str, Any]], cell: Callable[[Any], Any], path: Path) -> None:
    """Write rows as one sheet.

    Args:
        names: The headings.
        rows: Values by heading.
        cell: Makes a value one that a cell can hold, as in a CSV.
        path: The file.

    Raises:
        JobError: When there are more rows, or a longer text, than a sheet takes.
    """
    openpyxl = writer()
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.writer.excel import ExcelWriter

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("metadata")

    def written(name: str, number: int, value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float) and abs(value) < NUMBER_MAX:
            return value
        if isinstance(value, float) and not math.isfinite(value):
            return None
        text = value if isinstance(value, str) else str(cell(value))
        if len(text) > CHARACTERS_MAX:
            raise JobError(
                f"row {number}: {name} has {len(text)} characters; a cell of a workbook takes {CHARACTERS_MAX}, "
                "write .csv, .jsonl or .parquet"
            )
        found = WriteOnlyCell(sheet, _UNWRITABLE.sub("\ufffd", text))
        found.data_type, found.quotePrefix = "s", True  # text, also after somebody edited the cell
        return found

    try:
        sheet.append(names)
        for number, row in enumerate(rows, 1):
            _check_number(number)
            sheet.append([written(name, number, row[name]) for name in names])
        # `book.save` leaves the archive open where writing fails, and then Python prints a traceback at its end.
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            ExcelWriter(book, archive).save()
    except BaseException:
        sheet.close()  # and the file that openpyxl collects rows in goes too
        sheet._writer.cleanup()  # noqa: SLF001 -- openpyxl has no other name for it
        raise


def _check_number(number: int) -> None:
    if number > ROWS_MAX:
        raise JobError(f"there are more than {ROWS_MAX} rows, as a sheet takes; write .csv, .jsonl or .parquet")


def writer() -> Any:
    """Return the package that writes workbooks.

    Raises:
        JobError: When it is not installed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise JobError(
            "workbooks are written by openpyxl, which is not installed; pip install 'sdbatch[sheets]', or write .csv"
        ) from error
    return openpyxl

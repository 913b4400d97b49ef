"""What people write into the cells of a spreadsheet becomes what a column reads.

    cell --> Cells.value() --> value for `read_value`, or ValueRefused          what was understood --> Cells.notes

A cell has no types: a decimal may have a comma, several pictures may stand in one cell, a workbook has numbers where
text is meant.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

import pyarrow as pa

from sdbatch.manifest.schema import COLUMNS
from sdbatch.manifest.values import ValueRefused

_DECIMAL = re.compile(r"\s*[+-]?[0-9]*([.,])[0-9]+\s*")
_SHORTENED = re.compile(r"[0-9][.,][0-9]+E[+][0-9]{2}")
_SEVERAL = re.compile(r"\s*[|\r\n]\s*")
_NUMBERS: Final = frozenset(
    name for name, kind in COLUMNS.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)
)
_TEXTS: Final = frozenset(name for name, kind in COLUMNS.items() if pa.types.is_string(kind))
_LISTS_OF_TEXT: Final = frozenset(
    name for name, kind in COLUMNS.items() if pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
)
_LISTS: Final = frozenset(name for name, kind in COLUMNS.items() if pa.types.is_list(kind))
_SPOKEN: Final = {",": "a comma", ".": "a point"}


class Cells:
    """Reads the cells of one table.

    Attributes:
        notes: What was understood beyond what is written, by what it is about.
    """

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._mark: tuple[str, int] | None = None

    def value(self, name: str, value: Any, line: int | None) -> Any:
        """Return what a cell of a manifest's column means.

        Args:
            name: The column.
            value: Text, or what a workbook holds.
            line: Where it stands.

        Raises:
            ValueRefused: When it can mean two things, or nothing.
        """
        if isinstance(value, str):
            if name in _NUMBERS:
                return self._number(value, line)
            return self._several(name, value) if name in _LISTS_OF_TEXT else value
        if isinstance(value, dt.date | dt.time | dt.timedelta) and name in COLUMNS:
            raise ValueRefused("is a date or a time; write it as text")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if is_number and (name in _TEXTS or name in _LISTS) else value

    def look(self, name: str, text: str, line: int | None) -> None:
        """Note what a spreadsheet left in a text of the user's own: the first digits of a number, blanks at an end."""
        if "E+" in text and _SHORTENED.fullmatch(text):
            message = f"{name} has long numbers of which a spreadsheet saved the first digits, as {text} on line {line}"
            self.notes.setdefault(name, message)
        elif note := blanks_noted(name, text, line):
            self.notes.setdefault(name, note)

    def _number(self, text: str, line: int | None) -> str:
        """Return a number with a point; the first decimal of the table says which mark the others have."""
        found = _DECIMAL.fullmatch(text)
        if found is None:
            return text
        mark = found.group(1)
        if self._mark is None:
            self._mark = mark, line or 0
            if mark == ",":
                self.notes["decimals"] = f"has decimals with a comma, as {text.strip()!r} on line {line}"
        known, first = self._mark
        if mark != known:
            said = f"{_SPOKEN[mark]} as its decimal mark, and the number on line {first} has {_SPOKEN[known]}"
            raise ValueRefused(f"has {said}; a table has one of them")
        return text.replace(",", ".")

    def _several(self, name: str, text: str) -> Any:
        """Return the items of a cell that `|` or line ends divide; a JSON list is left to the reader of lists."""
        stripped = text.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            return text
        items = [item for item in _SEVERAL.split(stripped) if item]
        if len(items) < 2:
            return items[0] if items else None
        self.notes.setdefault(name, f"{name} has cells with several items, divided by | or by line ends")
        return items


def blanks_noted(name: str, text: str, line: int | None) -> str | None:
    """Return what to say of a text with blanks at an end, which nobody sees and no other text equals; None without."""
    if not text or not (_is_blank(text[0]) or _is_blank(text[-1])):
        return None
    return f"{name} has texts with blanks at their ends, which count, as {text[:40]!r} on line {line}"


def _is_blank(letter: str) -> bool:
    return letter == " " or not letter.isprintable()

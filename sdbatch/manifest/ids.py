"""Ids that are made from a format: `{sku}-{scene}` from columns, `scene-{row:05d}` from the number of the row.

    format --> IdFormat --> id of each row, or ValueRefused

A column's value becomes what an id may hold: accents go, and whatever is no letter, digit, dot, underscore or hyphen
becomes one hyphen.
"""

from __future__ import annotations

import datetime as dt
import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from sdbatch.errors import JobError
from sdbatch.manifest.row_place import ID, shown
from sdbatch.manifest.values import ValueRefused, called

ROW = "row"
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9._]+")
_SPEC = re.compile(r"[^0-9]*[0-9]{0,3}[^0-9]*[0-9]{0,3}[^0-9]*")
"""Widths of up to three digits: a format may not make an id of a gigabyte."""
_EXAMPLE = "as in '{sku}-{scene}' or 'scene-{row:05d}'"


class IdFormat:
    """A format of ids.

    Attributes:
        columns: Columns that it takes.
        counts_rows: Whether it holds the number of the row.

    Raises:
        JobError: When it is no format.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise JobError(f"id format {text!r}: {error}; it holds columns in braces, {_EXAMPLE}") from error
        for _, name, spec, conversion in self._parts:
            if name == "" or conversion or not _SPEC.fullmatch(spec or ""):
                raise JobError(f"id format {text!r}: it holds columns in braces, {_EXAMPLE}")
        names = dict.fromkeys(name for _, name, _, _ in self._parts if name is not None)
        self.columns = tuple(name for name in names if name != ROW)
        self.counts_rows = ROW in names

    def check_columns(self, seen: Collection[str]) -> None:
        """Raise JobError when a column that it takes is none of those that were seen."""
        for name in self.columns:
            if name not in seen:
                there = ", ".join(sorted(seen))[:200]
                raise JobError(f"id format {self._text!r}: the table has no column {name!r}; it has {there}")

    def __call__(self, row: Mapping[str, Any], number: int) -> str:
        """Return the id of a row.

        Args:
            row: Its values by column.
            number: Its number, from 0.

        Raises:
            ValueRefused: When a column is empty, or what is made of them is no id.
            JobError: When a value does not take the format.
        """
        made = "".join(
            literal + ("" if name is None else self._value(name, spec or "", row, number))
            for literal, name, spec, _ in self._parts
        )
        if not ID.fullmatch(made):
            raise ValueRefused(f"would be {shown(made)}, and ids are {ID.pattern}")
        return made

    def _value(self, name: str, spec: str, row: Mapping[str, Any], number: int) -> str:
        value = number if name == ROW else row.get(name)
        if value is None or value == "":
            raise ValueRefused(f"cannot be made: {name} is empty")
        if isinstance(value, list | tuple | dict | bytes):
            raise ValueRefused(f"cannot be made: {name} is {called(value)}")
        try:
            text = format(_plain(value), spec)
        except ValueError as error:
            raise JobError(f"id format {self._text!r}: {name} {shown(value)}: {error}") from error
        if not (of_id := slug(text)):
            raise ValueRefused(f"cannot be made: nothing of {name} {shown(value)} can stand in an id")
        return of_id


def slug(text: str) -> str:
    """Return what of a text may stand in an id: `Café au lait, 1/2` becomes `Cafe-au-lait-1-2`."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return _NOT_OF_AN_ID.sub("-", bare).strip("-")


def _plain(value: Any) -> Any:
    """Return a value as a CSV would have it: a spreadsheet's 12.0 is 12, a date is its ISO form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and -(2**53) < value < 2**53 and value == int(value):
        return int(value)
    return value.isoformat() if isinstance(value, dt.date) else value

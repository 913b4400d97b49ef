"""Rows of a text table become Arrow tables of the manifest's types.

    (line, row) --> TypedRows.add() --> values read --> TypedRows.take() --> Arrow table

What kind of values each x_* column has is kept in mind from row to row.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from sdbatch.errors import Problem
from sdbatch.manifest.cells import Cells
from sdbatch.manifest.check import Problems
from sdbatch.manifest.read import BATCH_ROWS
from sdbatch.manifest.row_place import shown, shown_id
from sdbatch.manifest.schema import COLUMNS, COLUMNS_MAX, own_name_problem
from sdbatch.manifest.spool import LINE
from sdbatch.manifest.tables import fault
from sdbatch.manifest.values import FLOAT_EXACT_MAX, ValueRefused, called, plain_text, read_value
from sdbatch.types import RefusedValue

BATCH_CHARS_MAX = 32 << 20
"""Characters of the texts that are kept before a table is made of them."""
_OWN_TYPES: Final[dict[str, pa.DataType]] = {
    "text": pa.string(),
    "a boolean": pa.bool_(),
    "a whole number": pa.int64(),
    "a number": pa.float64(),
    "a date": pa.date32(),
    "a time": pa.timestamp("us"),
}
_NUMBERS = {"a whole number", "a number"}
_WIDER: Final[dict[frozenset[str], str]] = {
    frozenset({"a whole number", "text"}): "text",
    frozenset({"a number", "text"}): "text",
    frozenset({"a date", "a time"}): "a time",
}
"""What cells of two kinds are together in one x_* column."""


class TypedRows:
    """Collects rows until they make a batch.

    Args:
        source: The table, as messages name it.
        problems: Takes the values that do not fit.
        cells: Reads what people type into cells; None where values have types of their own.

    Attributes:
        num_rows: Rows that wait.
    """

    def __init__(self, source: str, problems: Problems, cells: Cells | None = None) -> None:
        self._source = source
        self._problems = problems
        self._cells = cells
        self._columns: dict[str, list[Any]] = {}
        self._lines: list[int | None] = []
        self._chars = 0
        self._kinds: dict[str, tuple[str, int | None]] = {}
        self._widest: dict[str, int] = {}
        self.num_rows = 0

    @property
    def is_full(self) -> bool:
        """Whether a table should be taken."""
        return self.num_rows >= BATCH_ROWS or self._chars >= BATCH_CHARS_MAX

    def add(self, line: int | None, number: int, row: Mapping[str, Any]) -> None:
        """Read the values of a row.

        Args:
            line: Line that it begins on, from 1; None in a table without lines.
            number: Its number, from 0.
            row: Its values by the manifest's columns.

        Raises:
            ManifestError: When the rows have more columns than a manifest may have.
        """
        row_id = shown_id(row.get("id"))
        for name, value in row.items():
            column = self._columns.get(name)
            if column is None:
                column = self._new_column(name)
            try:
                column.append(self._value(name, value, line))
            except ValueRefused as error:
                column.append(None)
                self._problems.add(
                    Problem(
                        shard=self._source,
                        row=number,
                        column=name,
                        value=shown(value),
                        message=str(error),
                        id=row_id,
                        line=line,
                    )
                )
            if isinstance(value, str):
                self._chars += len(value)
        self._lines.append(line)
        self.num_rows += 1
        if len(row) < len(self._columns):
            for values in self._columns.values():
                if len(values) < self.num_rows:
                    values.append(None)

    def _value(self, name: str, value: Any, line: int | None) -> Any:
        if isinstance(value, RefusedValue):
            raise ValueRefused(value.message)
        if name not in COLUMNS:
            return self._own_value(name, value, line)
        return read_value(name, value if self._cells is None else self._cells.value(name, value, line))

    def take(self) -> pa.Table:
        """Return the rows that wait, and begin anew."""
        arrays = {name: _array(values, self._type(name)) for name, values in self._columns.items()}
        table = pa.table({**arrays, LINE: pa.array(self._lines, pa.int64())})
        for values in self._columns.values():
            values.clear()
        self._lines, self._chars, self.num_rows = [], 0, 0
        return table

    def _new_column(self, name: str) -> list[Any]:
        if len(self._columns) >= COLUMNS_MAX:
            raise fault(self._source, f"has over {COLUMNS_MAX} columns")
        if name not in COLUMNS and name.startswith("x_") and (message := own_name_problem(name)):
            raise fault(self._source, message, column=shown(name))
        column = self._columns[name] = [None] * self.num_rows
        return column

    def _type(self, name: str) -> pa.DataType:
        if name in COLUMNS:
            return COLUMNS[name]
        kind = self._kinds.get(name)
        return pa.null() if kind is None else _OWN_TYPES[kind[0]]

    def _own_value(self, name: str, value: Any, line: int | None) -> Any:
        """Return a value of an x_* column, whose values are all of one kind, numbers apart.

        Raises:
            ValueRefused: When it is of another kind than those before, or of none that x_* columns have.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        kind = _kind_of(value)
        if kind not in _OWN_TYPES:
            raise ValueRefused(f"is {kind}; x_ columns hold text, numbers or booleans")
        _check_own_value(value)
        if self._cells is not None and isinstance(value, str):
            self._cells.look(name, value, line)
        known, first = self._kinds.setdefault(name, (kind, line))
        if known != kind and self._cells is not None:
            known, kind = self._widened(self._cells, name, known, kind)
        if known != kind and {known, kind} != _NUMBERS:
            raise ValueRefused(f"is {kind}, and {known} on line {first}; a column has values of one kind")
        if {known, kind} <= _NUMBERS:
            self._check_numbers(name, value)
            self._kinds[name] = ("a number" if "a number" in {known, kind} else kind, first)
        return value

    def _widened(self, cells: Cells, name: str, known: str, kind: str) -> tuple[str, str]:
        """Return the kind of a column and of a cell in it, where a workbook has cells of kinds that go together."""
        wider = _WIDER.get(frozenset({known, kind}))
        if wider is None:
            return known, kind
        if wider == "text":
            cells.notes.setdefault(name, f"{name} has numbers and texts, and is read as text")
        self._kinds[name] = (wider, self._kinds[name][1])
        return wider, wider

    def _check_numbers(self, name: str, value: float) -> None:
        """Raise ValueRefused when a column would hold fractions and whole numbers that no float holds exactly."""
        if type(value) is int:
            self._widest[name] = max(abs(value), self._widest.get(name, 0))
        has_fractions = type(value) is float or self._kinds[name][0] == "a number"
        if has_fractions and (widest := self._widest.get(name, 0)) >= FLOAT_EXACT_MAX:
            raise ValueRefused(f"stands in a column with fractions and with {widest}, which no float holds exactly")


def _kind_of(value: Any) -> str:
    if type(value) is int:
        return "a whole number"
    if isinstance(value, dt.date):
        return "a time" if isinstance(value, dt.datetime) else "a date"
    return called(value)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of a column's values, those of narrower kinds widened."""
    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    elif pa.types.is_timestamp(kind):
        values = [
            value if value is None or isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())
            for value in values
        ]
    return pa.array(values, kind)


def _check_own_value(value: Any) -> None:
    if isinstance(value, str):
        plain_text(value)
    elif type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueRefused(f"is not in {-(2**63)}..{2**63 - 1}")

"""One thing wrong with one row, as the plan tells it; the driver adds file and row number for people."""

from __future__ import annotations

from typing import Any, NamedTuple


class RowProblem(NamedTuple):
    """Something wrong with a row.

    Attributes:
        column: Its column; None when the row as a whole is meant.
        value: What stands there; None for a source, whose value is looked up in the row.
        message: What is wrong, with the bound.
        offset: Row in the columns that were given, from 0. It is set when rows are known: settings are checked before.
    """

    column: str | None
    value: Any
    message: str
    offset: int = 0

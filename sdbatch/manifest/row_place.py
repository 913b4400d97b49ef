"""Says where a row stands, for people: the line of the table it was built from, else the row of its shard; its id."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from sdbatch.errors import Problem

if TYPE_CHECKING:
    from sdbatch.manifest.read import RowBatch

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHOWN_CHARS = 60
_SHOWN_ITEMS = 20


def problem_at(batch: RowBatch, offset: int, column: str | None, value: Any, message: str) -> Problem:
    """Return a problem of one row of a batch."""
    ids = batch.columns.get("id")
    row = batch.start + offset
    return Problem(
        shard=batch.shard,
        row=row,
        column=column,
        value=None if value is None else shown(value),
        message=message,
        id=shown_id(ids[offset]) if ids else None,
        source=batch.origin.file if batch.origin else None,
        line=batch.origin.line(row) if batch.origin else None,
    )


def shown_id(value: Any) -> str | None:
    """Return an id that may stand in a message as it is, None for anything else."""
    return value if isinstance(value, str) and ID.fullmatch(value) else None


def shown(value: Any) -> str:
    """Return a value as it may stand in a message: short, escaped, on one line."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, str):
        value = value[: _SHOWN_CHARS + 1]  # a long text is cut before it is escaped
    elif isinstance(value, list | tuple):
        value = value[:_SHOWN_ITEMS]
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return f"a number of {value.bit_length()} bits"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."

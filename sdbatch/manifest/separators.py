"""Which character stands between the cells of a text table.

its first lines --> cell_separator() --> "," ";" tab or "|", and whether a line `sep=;` stands first
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Final

SEPARATORS: Final = (",", ";", "\t", "|")
SPOKEN: Final = {"\t": "a tab"}
SAMPLE_CHARS: Final = 1 << 16
_SAMPLE_ROWS: Final = 100
_SAID: Final = re.compile(r"sep=([,;|\t])\r?\n?")


def said_separator(line: str) -> str | None:
    """Return the separator that a table's first line says, as Excel reads and some programs write it."""
    found = _SAID.fullmatch(line)
    return found.group(1) if found else None


def cell_separator(sample: str, is_known: Callable[[str], bool]) -> str:
    """Return the separator under which the header has known names, and the rows as many cells as the header.

    Args:
        sample: The first lines of the table.
        is_known: Whether a name is one that the table's columns are expected to have.
    """
    scores = {separator: _score(sample, separator, is_known) for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda separator: scores[separator])


def _score(sample: str, separator: str, is_known: Callable[[str], bool]) -> tuple[int, float, int]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator):
            rows.append(row)
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # told, with its line, where the table is read
    header = next((row for row in rows if row), [])
    if len(header) < 2:
        return 0, 0.0, 0
    body = [row for row in rows[1:-1] if row] or rows[1:]  # the last row may be cut
    even = sum(len(row) == len(header) for row in body) / len(body) if body else 1.0
    return sum(is_known(name.strip()) for name in header), even, len(header)

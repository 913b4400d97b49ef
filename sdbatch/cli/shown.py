"""The one way out to the terminal: whatever a command prints goes through `redacted`.

A stranger's model class, file name, prompt or error message reaches a person's terminal only without secrets, and with
escapes, other control characters and marks of direction made visible. Nothing else in this package prints.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdbatch.logs import redacted, redacted_json

_LINE_MAX: Final = 10_000
"""Columns of the longest line of a table that goes into a file or a pipe."""


def show(text: str) -> None:
    """Print a text to standard output."""
    print(redacted(text))


def show_in_place(text: str) -> None:
    """Show one line on a terminal in the place of the one before it."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r\x1b[2K{redacted(text)[:width]}", end="", flush=True)


def tell(text: str, end: str = "\n") -> None:
    """Print a text to standard error."""
    print(redacted(text), end=end, file=sys.stderr, flush=True)


def show_json(value: Any) -> None:
    """Print one JSON object to standard output."""
    print(redacted_json(value))


def show_table(rows: Sequence[Sequence[str]], headers: tuple[str, ...] = (), title: str | None = None) -> None:
    """Print a table to standard output; its texts are texts, and no markup of rich's.

    No text is cut: an id that is too long for a terminal goes on in the next line, and a file or a pipe gets lines as
    long as they need to be, in which `grep` finds it.
    """
    shown_title = Text(redacted(title), style="table.title") if title else None
    table = Table(*map(redacted, headers), title=shown_title, title_justify="left", show_header=bool(headers))
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(redacted(cell), overflow="fold") for cell in row))
    console = Console()
    if not console.is_terminal:
        widest = console.measure(table, options=console.options.update(max_width=_LINE_MAX)).maximum
        console = Console(width=max(console.width, widest))
    console.print(table)

r"""What a file is by its first bytes.

first bytes --> name_by_mark() --> one of a table's names
            \-> foreign_title() --> what messages call a file that is something else
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Marks = Iterable[tuple[int, bytes, str]]
"""Names by (offset, mark); the first mark that a file has counts."""

_TEXTS: Final = (
    (b"<!doctype html", "an HTML"),
    (b"<html", "an HTML"),
    (b"<!doctype svg", "an SVG"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an SVG or XML"),
    (b'{"', "a JSON"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
"""Texts that stand where pictures and clips should, such as a server's page of an error, by how they begin."""
_BOM: Final = b"\xef\xbb\xbf"
_TEXT_BYTES: Final = 1024
"""Bytes in which a text begins: some callers have the whole file at hand, and it is not to be copied."""


def name_by_mark(head: bytes, marks: Marks) -> str | None:
    """Return the name of the first mark that stands at its offset in a file's first bytes, None for none."""
    return next((name for start, mark, name in marks if head[start : start + len(mark)] == mark), None)


def foreign_title(head: bytes, foreign: Marks) -> str | None:
    """Return what a file is, with its article, that is not what was asked for; None where that is not known.

    Args:
        head: Its first bytes, or all of it.
        foreign: Files that people take for what was asked for. Texts are known besides, in capitals or not and after
            blanks.
    """
    if title := name_by_mark(head, foreign):
        return title
    text = head[:_TEXT_BYTES].removeprefix(_BOM).lstrip().lower()
    return next((title for beginning, title in _TEXTS if text.startswith(beginning)), None)

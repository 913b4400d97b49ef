"""In which letters a text table was written.

    file --> text_encoding() --> encoding, and what to say of it

A byte order mark tells; without one it is UTF-8 where the whole file is. What is neither is read as cp1252, which Excel
writes in western Europe and America, unless it would not make words: then its owner is asked, for a wrong guess would
be painted.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

from sdbatch.manifest.western import strange_word

WESTERN: Final = "cp1252"
_CHUNK_BYTES: Final = 1 << 20
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SPOKEN: Final = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}
_NO_WORDS: Final = re.compile(
    "[^\\W\\d_][\u201a\u201e\u2020-\u2022\u2030\u2039\u203a\u2122\u00a1-\u00a9\u00ac-\u00b4\u00b6\u00b8\u00b9\u00bb-\u00bf]"
    "[^\\W\\d_]"  # a sign inside a word
    "|[a-z\u00df-\u00ff][\u00c0-\u00de\u0160\u017d\u0152\u0178]"  # a capital with an accent inside a word
    "|[\u00c0-\u00ff\u0160\u0161\u017d\u017e\u0152\u0153\u0178]{4}"  # four letters with accents in a row
)
"""What text of another alphabet looks like when it is read as cp1252."""
_WORD_CHARS: Final = 12


class NotReadable(ValueError):
    """A file is text in no encoding that can be told; the text follows the file's name in a message."""


def text_encoding(source: Path, *, takes_western: bool = True) -> tuple[str, str | None]:
    """Return the encoding of a text file, and what its owner should be told of it.

    Args:
        source: The file.
        takes_western: Whether what is not Unicode may be cp1252.

    Raises:
        NotReadable: When it is none of those that can be told apart.
        OSError: When it cannot be read.
    """
    with source.open("rb") as file:
        head = file.read(4096)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _by_zeros(head)
    if encoding is not None:
        _refuse_broken(source, encoding)
        spoken = _SPOKEN.get(encoding)
        return encoding, f"is read as {spoken}" if spoken else None
    line = _first_fault(source, "utf-8")
    if line is None:
        return "utf-8", None
    if not takes_western:
        raise NotReadable(f"is not UTF-8 text (line {line}); save it as UTF-8")
    return WESTERN, f"is read as cp1252 (Windows, western Europe), since it is not UTF-8: {_western_word(source, line)}"


def _by_zeros(head: bytes) -> str | None:
    """Return which UTF-16 a text without a mark is: half of the bytes of western text are zeros."""
    zeros = head[0::2].count(0), head[1::2].count(0)
    if max(zeros) < len(head) // 8 or not max(zeros):
        return None
    return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"


def _refuse_broken(source: Path, encoding: str) -> None:
    line = _first_fault(source, encoding)
    if line is not None:
        spoken = _SPOKEN.get(encoding, "UTF-8")
        raise NotReadable(f"begins as {spoken} and is not (line {line}); save it as UTF-8")


def _first_fault(source: Path, encoding: str) -> int | None:
    """Return the line on which a file stops being text of an encoding, None when all of it is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                return line + bytes(error.object[: error.start]).count(b"\n")
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return line
    return None


def _western_word(source: Path, line: int) -> str:
    """Return the first word of a file that shows its letters; refuse a file that is not cp1252."""
    shown = ""
    number = 1
    with source.open(encoding=WESTERN, newline="") as file:
        try:
            while text := file.read(_CHUNK_BYTES) + file.readline(_CHUNK_BYTES):
                if strange := _NO_WORDS.search(text) or strange_word(text):
                    line = number + text.count("\n", 0, strange.start())
                    raise _not_western(line, f", which would have {strange[0][:_WORD_CHARS]!r}")
                if not shown and (found := re.search(r"\w*[^\x00-\x7f]\w*", text)):
                    at = number + text.count("\n", 0, found.start())
                    shown = f"line {at} has {found.group()[:_WORD_CHARS]!r}"
                number += text.count("\n")
        except UnicodeDecodeError as error:
            raise _not_western(line) from error
    return shown


def _not_western(line: int, shown: str = "") -> NotReadable:
    return NotReadable(
        f"is neither UTF-8 nor western European text (line {line}{shown}); save it as UTF-8 (in Excel: CSV UTF-8)"
    )

"""What a reader of values would pass over in a sheet's XML: formulas never computed, merged cells, what is hidden.

the XML of a sheet, in pieces --> look() --> Seen
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import IO, Final

_CHUNK_BYTES: Final = 1 << 20
_OVERLAP_BYTES: Final = 1 << 16
"""A cell is shorter than this, formula and text together: Excel takes 8,192 and 32,767 characters of them."""
_ANY = rb"(?:[A-Za-z]\w*:)?"
"""Some programs write a name of the namespace before every tag."""
_UNCOMPUTED: Final = re.compile(
    rb'<%sc\s[^>]*?r="([A-Z]{1,3}[0-9]{1,7})"[^>]*>\s*<%sf(?:\s[^>]*?)?(?:/>|>[^<]*</%sf>)\s*(?:<%sv\s*/>\s*)?</%sc>'
    % ((_ANY,) * 5)
)
_COMPUTED_ZERO: Final = re.compile(
    rb'<%sc\s[^>]*?r="([A-Z]{1,3}[0-9]{1,7})"[^>]*>\s*<%sf(?:\s[^>]*?)?(?:/>|>[^<]*</%sf>)\s*<%sv>0</%sv>'
    % ((_ANY,) * 5)
)
COMPUTED_ON_LOAD: Final = re.compile(rb'<%scalcPr\s[^>]*?fullCalcOnLoad="(?:1|true)"' % _ANY)
"""In the part that lists the sheets: every formula is to be computed when it is opened, whatever value it has."""
_MERGED: Final = re.compile(rb'<%smergeCell\s[^>]*?ref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"' % _ANY)
_HIDDEN: Final = re.compile(rb'<%srow\s[^>]*?hidden="(?:1|true)"' % _ANY)
_HIDDEN_COLUMNS: Final = re.compile(rb'<%scol\s(?=[^>]*?hidden="(?:1|true)")[^>]*>' % _ANY)
_ENDS: Final = re.compile(rb'\s(min|max)="([0-9]{1,7})"')
_MERGED_MAX: Final = 10_000


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen in a sheet.

    Attributes:
        uncomputed: The first cell whose formula has no value beside it; "" for none.
        zero: The first cell whose formula has the value 0; "" for none.
        merged: First column, last column, first row, last row, name of each group of merged cells; numbers from 1.
        num_hidden: Rows that are hidden, by hand or by a filter.
        hidden_columns: First and last of columns that are hidden; numbers from 1.
    """

    uncomputed: str = ""
    zero: str = ""
    merged: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    num_hidden: int = 0
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)


def look(part: IO[bytes]) -> Seen:
    """Read the XML of a sheet once, in pieces that overlap."""
    seen = Seen()
    rest = b""
    while chunk := part.read(_CHUNK_BYTES):
        text = rest + chunk
        # What begins in the part that is looked at again with the next piece counts there.
        end = max(len(text) - _OVERLAP_BYTES, 0)
        _take(seen, text, end)
        rest = text[end:]
    _take(seen, rest, len(rest))
    return seen


def _take(seen: Seen, text: bytes, end: int) -> None:
    if b"<f" in text or b":f" in text:
        seen.uncomputed = seen.uncomputed or _first_cell(_UNCOMPUTED, text, end)
        seen.zero = seen.zero or _first_cell(_COMPUTED_ZERO, text, end)
    seen.num_hidden += sum(one.start() < end for one in _HIDDEN.finditer(text))
    for one in _HIDDEN_COLUMNS.finditer(text):
        ends = {name: int(number) for name, number in _ENDS.findall(one[0])}
        if one.start() < end and len(ends) == 2 and len(seen.hidden_columns) < _MERGED_MAX:
            seen.hidden_columns.append((ends[b"min"], ends[b"max"]))
    for one in _MERGED.finditer(text):
        if one.start() < end and len(seen.merged) < _MERGED_MAX:
            first, top, last, bottom = (part.decode() for part in one.groups())
            name = f"{first}{top}:{last}{bottom}"
            seen.merged.append((_number(first), _number(last), int(top), int(bottom), name))


def _first_cell(pattern: re.Pattern[bytes], text: bytes, end: int) -> str:
    found = next((one for one in pattern.finditer(text) if one.start() < end), None)
    return found.group(1).decode() if found else ""


def _number(letters: str) -> int:
    """Return the number of a column, A being 1."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number

"""Where the rows of a built shard come from: the table and its lines, kept in the shard's footer.

    lines of the rows --> Origin.note() --> footer --> Origin.from_footer() --> the line of any row

So a message about a built manifest names the line of the table that a person opens. Rows mostly stand on consecutive
lines, so only the places where they do not are kept.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

KEY: Final = b"sdbatch.built_from"
STARTS_MAX = 20_000
"""Most places that are kept; a table with more of them, such as one whose every cell has lines, is not kept at all."""
_NOTE_BYTES_MAX = 1 << 20
_FILE_CHARS_MAX = 255


@dataclass(frozen=True, slots=True)
class Origin:
    """The table that a shard was built from.

    Attributes:
        file: Name of the table.
        starts: (row, line) of each row that does not stand on the line after its predecessor's; rows from 0, lines
            from 1, both ascending; the first is row 0. Empty where it has no lines, as a brief has none.
    """

    file: str
    starts: tuple[tuple[int, int], ...]

    def line(self, row: int) -> int | None:
        """Return the line on which a row begins, None where there are no lines."""
        if not self.starts:
            return None
        first, line = self.starts[bisect_right(self.starts, row, key=lambda start: start[0]) - 1]
        return line + row - first

    def note(self) -> dict[bytes, bytes]:
        """Return what goes into the footer."""
        return {KEY: json.dumps({"file": self.file, "starts": self.starts}).encode()}

    @classmethod
    def from_footer(cls, metadata: Mapping[bytes, bytes] | None) -> Origin | None:
        """Return what a footer says; None when it says nothing, or nothing that can be understood."""
        note = (metadata or {}).get(KEY, b"")
        if not 0 < len(note) <= _NOTE_BYTES_MAX:
            return None
        try:
            value = json.loads(note)
            file, starts = value["file"], tuple((row, line) for row, line in value["starts"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        numbers = [number for start in starts for number in start]
        is_understood = (
            isinstance(file, str)
            and 0 < len(file) <= _FILE_CHARS_MAX
            and file.isprintable()
            and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            and (not starts or starts[0][0] == 0)
            and all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(starts))
        )
        return cls(file, starts) if is_understood else None


class OriginNotes:
    """Collects the lines of a shard's rows while it is written.

    Args:
        file: Name of the table.
    """

    def __init__(self, file: str) -> None:
        self._file = file[:_FILE_CHARS_MAX]
        self._starts: list[tuple[int, int]] = []
        self._num_rows = 0
        self._last = 0

    def add(self, lines: Sequence[int]) -> None:
        """Take the lines of the rows that come next."""
        for line in lines:
            if (not self._num_rows or line != self._last + 1) and len(self._starts) <= STARTS_MAX:
                self._starts.append((self._num_rows, line))
            self._num_rows += 1
            self._last = line

    def note(self) -> dict[bytes, bytes]:
        """Return what goes into the footer; nothing where too much would have to be kept."""
        if len(self._starts) > STARTS_MAX:
            return {}
        return Origin(self._file, tuple(self._starts)).note()

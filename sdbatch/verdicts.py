"""What people think of outputs now: one row for each stored file that anybody judged.

    decisions --> review --> Verdicts --> campaign: the columns `verdict`, `reviewed_by`, `reviewed_at`, `note`

A verdict is bound to the bytes that were judged: where another file is stored under the output, it does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.columns import JOINED

VERDICTS: Final = ("rejected", "picked", "approved")
"""What an output can be; where reviewers differ, the first of these counts."""

_BOUND_TO: Final = (("id", pa.string()), ("request_key", pa.string()), ("n", pa.int32()), ("sha256", pa.string()))
JOINED_SCHEMA: Final = pa.schema([(column.name, column.type) for column in JOINED.values()])
"""What a metadata row is given by its verdict: all null where there is none."""
VERDICT_ROWS: Final = pa.schema([*_BOUND_TO, *JOINED_SCHEMA])
"""The judged file, then what is said of it. `verdict` is null where there is only a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """All verdicts of a campaign.

    Attributes:
        rows: Columns as in `VERDICT_ROWS`; each (id, request_key, n, sha256) once.
        files: Paths of the files of decisions that they follow from, sorted.
    """

    rows: pa.Table
    files: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nobody judged anything."""
        return not self.rows.num_rows


def judged_files(verdicts: Verdicts, *words: str) -> frozenset[tuple[str, str, int, str]]:
    """Return the files of one of these verdicts: id, request key, output number and sha256 of each."""
    rows = verdicts.rows.filter(pc.is_in(verdicts.rows.column("verdict"), pa.array(words, pa.string())))
    columns = (rows.column(name).to_pylist() for name, _ in _BOUND_TO)
    return frozenset(zip(*columns, strict=True))


# Made at import, so no `empty_table`, which asks for pandas: see `without_pandas`.
NO_VERDICTS: Final = Verdicts(rows=pa.Table.from_batches([], VERDICT_ROWS))

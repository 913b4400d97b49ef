"""Verdicts laid over a campaign's outputs: a verdict holds where the stored file is the one that was judged.

Verdicts --> Judged.joined(rows) --> rows with `verdict`, `reviewed_by`, `reviewed_at`, `note`
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sdbatch.campaign.digests import (
    Digests,
    DigestTable,
    digest_order,
    id_digests,
    key_words,
    numbers_of,
    output_digests,
    request_digests,
)
from sdbatch.verdicts import JOINED_SCHEMA, Verdicts


class Judged:
    """Verdicts, looked up by the file that was judged.

    Args:
        verdicts: All of them.
    """

    def __init__(self, verdicts: Verdicts) -> None:
        digests = _file_digests(verdicts.rows)
        self._order = digest_order(digests, np.arange(len(digests)))
        self._table = DigestTable(digests.take(self._order))
        self._joined = verdicts.rows.select(JOINED_SCHEMA.names).combine_chunks()

    def joined(self, rows: pa.Table) -> pa.Table:
        """Return metadata rows with the columns of `JOINED_SCHEMA`, null where nobody judged the stored file."""
        place = np.append(self._order, -1)[self._table.positions(_file_digests(rows))]
        found = self._joined.take(pa.array(place, mask=place < 0))
        for field in JOINED_SCHEMA:
            rows = rows.append_column(field, found.column(field.name))
        return rows


def _file_digests(rows: pa.Table) -> Digests:
    """Return a digest of (id, request key, n, sha256) for each row."""
    requests = request_digests(id_digests(rows.column("id")), rows.column("request_key"))
    outputs = output_digests(requests, numbers_of(rows.column("n")))
    words = key_words(rows.column("sha256"))
    return Digests(high=outputs.high ^ words[:, 0], low=outputs.low ^ words[:, 1])

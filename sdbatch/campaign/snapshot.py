"""All outcomes as of the end of a run, in one file, so that a resume reads it and the runs after it alone.

    History (what the run's end saw) --> is it time? --> runs/<run>/snapshot.parquet, put if absent

It tells of its run and every earlier one, with what was made void among them left out. From then on a commit of these
runs that is not in it counts nowhere: it came late, from a worker that was given up. No output is lost by that, since
one that nobody else made is made again. Only the driver that holds the lease writes one, and the driver that follows it
sees to it that none comes afterwards (`files.history_files`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.campaign import layout
from sdbatch.campaign.history import History, all_parts
from sdbatch.campaign.schema import INDEX, marks
from sdbatch.storage import Store
from sdbatch.storage.footers import with_footer_sum

NEW_SHARE: Final = 0.1
"""Share of the outcomes that the last snapshot does not tell of, from which on a new one is written."""
OBJECTS_MAX: Final = 6
"""Files besides the last snapshot that a resume reads, from which on a new one is written, however little is new."""
RUNS_MAX: Final = 8
"""Runs since the last snapshot, each of which a resume lists, from which on a new one is written."""
_ROWS: Final = 65_536


def is_due(history: History) -> bool:
    """Whether a snapshot is to be written at the end of the run that read this."""
    if history.files.snapshot is None:
        return len(history) > 0
    num_new = len(history) - history.num_in_snapshot
    is_much = num_new > 0 and num_new >= NEW_SHARE * len(history)
    return is_much or history.num_objects >= OBJECTS_MAX or len(history.files.later) >= RUNS_MAX


def write_snapshot(store: Store, run: str, history: History) -> None:
    """Write what is done as of the end of a run, before its `run.json`.

    Args:
        store: The campaign.
        run: The run that ends; it holds the lease.
        history: Read at its end: the commits it counts are those that its metadata were made from.
    """
    sink = pa.BufferOutputStream()
    alike = [name for name in INDEX.names if name not in {"id", "request_key"}]
    schema = INDEX.with_metadata(marks(run_id=run))
    settings = {"use_dictionary": alike, "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(sink, schema, compression="zstd", **settings) as writer:
        for rows in _large_parts(all_parts(store, history.files)):
            writer.write_table(rows)
    store.put_new(layout.snapshot(run), with_footer_sum(sink.getvalue()), "application/vnd.apache.parquet")


def _large_parts(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in parts of at least `_ROWS`, the last apart: each becomes a row group."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(table.num_rows for table in waiting) >= _ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    yield pa.concat_tables([INDEX.empty_table(), *waiting])

"""Writes what a finished run leaves for readers: its metadata in one table, and the gallery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.history import History
from sdbatch.campaign.schema import PICTURES, to_parquet
from sdbatch.columns import JOINED
from sdbatch.driver.gallery import write_gallery
from sdbatch.points import reached
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store
from sdbatch.types import FORMAT_VERSION

PART_ROWS: Final = 16_384


def write_metadata(
    store: Store,
    run: str,
    confirm: Callable[[], None] = lambda: None,
    *,
    state: str = "done",
    progress: Mapping[str, Any] | None = None,
) -> History:
    """Compact a run's effective rows, write the gallery, point `latest.json` at the rows; return what they came from.

    Each commit is read once, for both.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        confirm: Raises when the campaign is no longer ours; asked before anything is replaced.
        state: How the run ended.
        progress: What the gallery says of the run; see `state_values`.
    """
    history = Campaign(store).history()
    verdicts = read_verdicts(store)
    rows = EffectiveRows(store, run, history, verdicts)
    num_rows = rows.count()
    confirm()
    write_gallery(store, run, _written(store, run, rows.parts(thumbnails=True)), state=state, progress=progress)
    if verdicts.files:
        seen = {"format_version": FORMAT_VERSION, "files": list(verdicts.files)}
        store.put_new(layout.reviews(run), (json.dumps(seen, indent=1) + "\n").encode(), "application/json")
    latest = {"format_version": FORMAT_VERSION, "run_id": run, "path": layout.metadata(run), "rows": num_rows}
    confirm()
    reached("amid-compaction")
    store.put(layout.LATEST, (json.dumps(latest, indent=1) + "\n").encode(), "application/json")
    return history


def _written(store: Store, run: str, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the parts, and write them without thumbnails and without verdicts, which change, as the metadata."""
    waiting: list[pa.Table] = []
    number = 0
    for part in parts:
        waiting.append(part.drop_columns([*PICTURES.names, *JOINED]))
        if sum(table.num_rows for table in waiting) >= PART_ROWS:
            _put_part(store, run, number, waiting)
            waiting, number = [], number + 1
        yield part
    if waiting:
        _put_part(store, run, number, waiting)


def _put_part(store: Store, run: str, number: int, tables: list[pa.Table]) -> None:
    data = to_parquet(pa.concat_tables(tables).combine_chunks(), run_id=run)
    store.put_new(layout.part(run, number), data, "application/vnd.apache.parquet")

"""Writes what a finished run leaves for readers: its metadata in one table, and the gallery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.history import History
from sdbatch.campaign.schema import to_parquet
from sdbatch.columns import JOINED
from sdbatch.points import reached
from sdbatch.report.gallery import gallery_pages
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store
from sdbatch.types import FORMAT_VERSION


def write_metadata(store: Store, run: str, confirm: Callable[[], None] = lambda: None) -> History:
    """Compact a run's effective rows, write the gallery, point `latest.json` at the rows; return what they came from.

    Each commit is read once, for both.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        confirm: Raises when the campaign is no longer ours; asked before anything is replaced.
    """
    history = Campaign(store).history()
    verdicts = read_verdicts(store)
    rows = EffectiveRows(store, run, history, verdicts)
    num_rows = rows.count()
    confirm()
    write_gallery(store, run, _written(store, run, rows.parts(thumbnails=True)), num_rows)
    if verdicts.files:
        seen = {"format_version": FORMAT_VERSION, "files": list(verdicts.files)}
        store.put_new(layout.reviews(run), (json.dumps(seen, indent=1) + "\n").encode(), "application/json")
    latest = {"format_version": FORMAT_VERSION, "run_id": run, "path": layout.metadata(run), "rows": num_rows}
    confirm()
    reached("amid-compaction")
    store.put(layout.LATEST, (json.dumps(latest, indent=1) + "\n").encode(), "application/json")
    return history


def _written(store: Store, run: str, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the parts, each once it stands in the metadata without its thumbnails and verdicts, which change."""
    for number, part in enumerate(parts):
        data = to_parquet(part.drop_columns(["thumbnail", *JOINED]), run_id=run)
        store.put_new(layout.part(run, number), data, "application/vnd.apache.parquet")
        yield part


def write_gallery(store: Store, run: str, parts: Iterable[pa.Table], num_rows: int) -> None:
    """Write the gallery of a run's effective rows, which come with thumbnails; `num_rows` in all parts."""
    for name, html in gallery_pages(store.url, run, parts, num_rows):
        store.put(f"{layout.REPORT}/{name}", html, "text/html; charset=utf-8")

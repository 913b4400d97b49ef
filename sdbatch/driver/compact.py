"""Writes what a finished run leaves for readers: its metadata in one table, and the gallery."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.read import effective_parts, read_index
from sdbatch.campaign.schema import to_parquet
from sdbatch.points import reached
from sdbatch.report.gallery import gallery_pages
from sdbatch.storage import Store
from sdbatch.types import FORMAT_VERSION


def write_metadata(store: Store, run: str, confirm: Callable[[], None] = lambda: None) -> int:
    """Compact a run's effective rows, point `latest.json` at them and write the gallery; return their number.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        confirm: Raises when the campaign is no longer ours; asked before anything is replaced.
    """
    index = read_index(store)
    num_rows = 0
    for number, part in enumerate(effective_parts(store, run, index)):
        num_rows += part.num_rows
        store.put_new(layout.part(run, number), to_parquet(part, run_id=run), "application/vnd.apache.parquet")
    latest = {"format_version": FORMAT_VERSION, "run_id": run, "path": layout.metadata(run), "rows": num_rows}
    confirm()
    reached("amid-compaction")
    store.put(layout.LATEST, (json.dumps(latest, indent=1) + "\n").encode(), "application/json")
    write_gallery(store, run, index, num_rows)
    return num_rows


def write_gallery(store: Store, run: str, index: pa.Table, num_rows: int) -> None:
    """Write the gallery of a run's effective rows."""
    parts = effective_parts(store, run, index, thumbnails=True)
    for name, html in gallery_pages(store.url, run, parts, num_rows):
        store.put(f"{layout.REPORT}/{name}", html, "text/html; charset=utf-8")

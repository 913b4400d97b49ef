"""Writes the gallery into a campaign: whole at the end of a run, and what is new while a run goes on.

    effective rows --> write_gallery()          commits of this run --> LiveGallery, on a thread of its own

While a run goes on each commit is read once. The time between two writes follows from what the last one cost, so that
the gallery never takes more than `CPU_SHARE_MAX` of a processor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout, schema
from sdbatch.campaign.effective import with_own_assets
from sdbatch.campaign.files import request_parts
from sdbatch.campaign.read import read_commit, read_requests
from sdbatch.driver.older_versions import OlderVersions
from sdbatch.errors import SdbatchError
from sdbatch.report.gallery import INDEX, MEDIA_TYPES, STATE, Gallery, chunks_of, index_page, state_values, written
from sdbatch.storage import Store

LOG = logging.getLogger("sdbatch.driver")
GALLERY_EVERY_S: Final = 30.0
CPU_SHARE_MAX: Final = 0.01
UNITS_AT_ONCE: Final = 16
"""Units whose rows are held at a time, with their pictures."""
WRITE_CPU_S: Final = 1.0
"""CPU that one write takes for new rows while a run goes on; units beyond it wait for the next write."""
CLOSE_WAITS_S: Final = 60.0
"""Longest that the end of a run waits for a write of the gallery that is under way."""


def write_gallery(
    store: Store,
    run: str,
    parts: Iterable[pa.Table],
    *,
    state: str = "done",
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Write the gallery of a run's effective rows, which come with thumbnails; files of an earlier gallery go.

    Args:
        store: The campaign.
        run: Whose manifest is shown.
        parts: The rows.
        state: Of the run.
        progress: See `state_values`.
    """
    files = GalleryFolder(store)
    older = OlderVersions(store)
    gallery = written(store.url, run, map(older.joined, parts), files.put, state=state, **(progress or {}))
    if state != "running":  # a driver may be adding to those files
        files.remove_stale(gallery)


def told_of(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's `status.json` says to the gallery; see `state_values`."""
    made, pending = status.get("assets_ended") or 0, status.get("assets_pending") or 0
    told = {name: status.get(name) for name in ("rate_per_s", "eta_s", "workers")}
    failed = (status.get("counts") or {}).get("rows_failed", 0)
    return {**told, "made": made, "pending": made + pending, "failed": failed, "updated_s": round(time.time())}


class GalleryFolder:
    """The gallery's folder in a campaign. What lies there is never trusted to be what its name says: it is a script.

    Args:
        store: The campaign.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        entries = store.list(layout.REPORT, deep=True)
        self._there = {entry.path.removeprefix(f"{layout.REPORT}/") for entry in entries}

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        self._store.put(f"{layout.REPORT}/{name}", data, MEDIA_TYPES[name.rpartition(".")[2]])
        self._there.add(name)

    def remove_stale(self, gallery: Gallery) -> None:
        """Remove the files of earlier galleries that this one does not need."""
        for name in sorted(filter(gallery.is_stale, self._there)):
            self._store.delete(f"{layout.REPORT}/{name}")


class LiveGallery:
    """The gallery of a run that goes on.

    Args:
        store: The campaign.
        run: The run.
        confirm: Raises when the campaign is no longer ours.
    """

    def __init__(self, store: Store, run: str, confirm: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._run = run
        self._confirm = confirm
        self._new: list[str] = []
        self._left: list[str] = []
        self._found_in = 0
        self._gallery: Gallery | None = None
        self._replaced: list[str] = []
        self._thread: threading.Thread | None = None
        self._due_s = time.monotonic() + GALLERY_EVERY_S
        self.cpu_s = 0.0

    def committed(self, unit: str) -> None:
        """Note a unit whose commit is there."""
        self._new.append(unit)

    def tick(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        """Write what is new, when it is time, without keeping the caller waiting.

        Args:
            progress: Asked then; see `state_values`.
        """
        if time.monotonic() < self._due_s or (self._thread is not None and self._thread.is_alive()):
            return
        self._due_s = time.monotonic() + GALLERY_EVERY_S
        self._left, self._new = [*self._left, *self._new], []
        self._thread = threading.Thread(target=self._write_quietly, args=("running", progress()), daemon=True)
        self._thread.start()

    def close(self, state: str, progress: Mapping[str, Any]) -> None:
        """Write what is left of a run that ends before its manifest is made.

        Args:
            state: How it ended.
            progress: See `state_values`.
        """
        if self.stop():
            self._left, self._new = [*self._left, *self._new], []
            self._write_quietly(state, progress)

    def stop(self) -> bool:
        """Wait for a write that is under way; return whether none is any more."""
        if self._thread is not None:
            self._thread.join(CLOSE_WAITS_S)
        return self._thread is None or not self._thread.is_alive()

    def _write_quietly(self, state: str, progress: Mapping[str, Any]) -> None:
        """Write; without it the pictures are all there, and the end of the run or `report` shows them."""
        started_s = time.thread_time()
        try:
            self._confirm()
            self._write(state, progress, started_s + (WRITE_CPU_S if state == "running" else CLOSE_WAITS_S))
        except (SdbatchError, OSError, pa.ArrowException) as error:
            LOG.warning("not written", extra={"run_id": self._run, "what": "gallery", "error": str(error)})
        spent_s = time.thread_time() - started_s
        self.cpu_s += spent_s
        self._due_s = max(self._due_s, time.monotonic() + spent_s / CPU_SHARE_MAX)

    def _write(self, state: str, progress: Mapping[str, Any], until_s: float) -> None:
        gallery = self._gallery or self._begun()
        self._gallery = gallery
        for name in self._replaced:  # for one turn they stay, for pages that have read the state before
            self._store.delete(f"{layout.REPORT}/{name}")
        self._replaced = []
        while self._left and time.thread_time() < until_s:
            now, self._left = self._left[:UNITS_AT_ONCE], self._left[UNITS_AT_ONCE:]
            gallery.add(self._rows(now))
        values = {**progress, "updated_s": round(time.time())}
        gallery.flush(state_values(self._store.url, self._run, state, **values))
        self._replaced, gallery.replaced = gallery.replaced, []

    def _begun(self) -> Gallery:
        """Go on from the gallery of the run before."""
        files = GalleryFolder(self._store)
        try:
            chunks = chunks_of(self._store.read(f"{layout.REPORT}/{STATE}"))
        except FileNotFoundError:
            chunks = []
        files.put(INDEX, index_page(self._store.url))
        return Gallery(put=files.put, chunks=chunks)

    def _rows(self, units: list[str]) -> pa.Table:
        """Return the rows of some commits, with the columns of the manifest's owner."""
        commits = (read_commit(self._store, layout.commit(self._run, unit), schema.COMMIT.names) for unit in units)
        rows = pa.concat_tables(map(with_own_assets, commits))
        own = self._own_columns(pc.unique(rows.column("id")))
        places = pc.index_in(rows.column("id"), own.column("id"))
        for name in own.column_names[1:]:
            rows = rows.append_column(name, own.column(name).take(places))
        return rows

    def _own_columns(self, ids: pa.Array) -> pa.Table:
        """Return `id` and the x_* of some rows of the manifest; they mostly stand where the last ones stood."""
        paths = request_parts(self._store, self._run)
        found: list[pa.Table] = []
        for turn in range(len(paths)):
            place = (self._found_in + turn) % len(paths)
            part = read_requests(self._store, paths[place])
            part = part.select(["id", *(name for name in part.column_names if name.startswith("x_"))])
            part = part.filter(pc.is_in(part.column("id"), ids))
            found.append(part)
            if part.num_rows:
                self._found_in = place
            if sum(table.num_rows for table in found) == len(ids):
                break
        return pa.concat_tables(found, promote_options="default")

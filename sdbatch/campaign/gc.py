"""Removal of what a campaign no longer needs: orphans, partial files, beats of drivers that ended.

    assets no commit names  -->  old enough?  -->  void for every earlier run  -->  removed

An orphan is what a killed worker left before its commit, and just what a resume would adopt, or what a worker that was
cut off (a *zombie*) may still name in a commit to come. Three things keep a commit from naming what is gone:

- It holds the lease while it removes, so no driver plans, and no worker of one adopts, beside it.
- Nothing younger than a day goes, by the store's own clock: a unit takes minutes.
- Before the first file goes, its output is written down as void for all earlier runs (`redo.parquet` under an id of
  the lease's epoch). A zombie belongs to an earlier run, so its commit, however late, does not count, and the output is
  made anew. Nor does a commit that a snapshot passed over: what it alone names is an orphan.

Void first, then removed: killed in between, the rest is an orphan still, and the next call removes it.

What the newest manifest wants no longer is removed on request: see `superseded`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.committed import read_committed
from sdbatch.campaign.files import READ_THREADS
from sdbatch.campaign.lease import Lease, acquire, superseded
from sdbatch.campaign.schema import INDEX, VOID, table, to_parquet
from sdbatch.campaign.superseded import (
    SUPERSEDED_READ,
    Keeper,
    Superseded,
    SupersededAsset,
    superseded_assets,
)
from sdbatch.storage import Entry, Store

OLDER_THAN_S = 24 * 3600.0
_NAMED = INDEX.append(pa.field("asset", pa.string()))


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """The result of `gc`: files that can go, removed when the caller asked for it.

    Attributes:
        orphans: Assets no commit names, old enough to go.
        temporary: Partial files that killed writers left (local folders only).
        beats: Signs of life, and requests to stop, of drivers that were followed by another.
        superseded: Assets of older keys of rows that were edited, where those were asked for.
        kept: Number of such assets that stay, by why.
        freed_bytes: Length of all of them.
        num_younger: Files of these kinds that are too young to go.
        is_deleted: Whether they were removed.
    """

    orphans: tuple[str, ...]
    temporary: tuple[str, ...]
    beats: tuple[str, ...]
    freed_bytes: int
    num_younger: int
    is_deleted: bool
    superseded: tuple[str, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)


def collect_garbage(
    store: Store,
    *,
    older_than_s: float = OLDER_THAN_S,
    delete: bool = False,
    keeps: Callable[[], Mapping[str, Keeper]] | None = None,
) -> GcReport:
    """Find, and when told to remove, what nothing in a campaign needs.

    Args:
        store: The campaign.
        older_than_s: Seconds since a file's last change, below which it stays.
        delete: Remove them. Without it nothing is written, and age is taken by this machine's clock.
        keeps: With it, assets of older keys go too; it says what of them stays all the same, by why.

    Raises:
        CampaignHeld: When a driver holds the campaign and files are to be removed.
        UserError: When a commit is not readable, or not there though a snapshot tells of it: what it names would look
            like an orphan.
    """
    if not delete:
        return _report(_find(store, time.time() - older_than_s, keeps), is_deleted=False)
    lease = acquire(store)
    try:
        # The lease's file was written a moment ago, so it tells the time by the store's clock.
        now_s = store.stat(layout.lease(lease.holder.epoch)).modified_s
        found = _find(store, now_s - older_than_s, keeps)
        _make_void(store, lease, found.orphans, found.superseded)
        files = (asset.entry for asset in found.superseded)
        _remove(store, lease, (*found.orphans, *files, *found.temporary, *found.beats))
    finally:
        lease.release()
    return _report(found, is_deleted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    orphans: tuple[Entry, ...]
    temporary: tuple[Entry, ...]
    beats: tuple[Entry, ...]
    num_younger: int
    superseded: tuple[SupersededAsset, ...]
    kept: Mapping[str, int]


def _find(store: Store, before_s: float, keeps: Callable[[], Mapping[str, Keeper]] | None = None) -> _Found:
    assets = store.list(layout.ASSETS)  # before the commits: one that is named between the two is not an orphan
    rows = read_committed(store, _NAMED if keeps is None else SUPERSEDED_READ).rows
    paths = pa.array([entry.path for entry in assets], pa.string())
    is_named = pc.is_in(paths, rows.column("asset"))
    unnamed = [entry for entry, named in zip(assets, is_named.to_pylist(), strict=True) if not named]
    # Made under another name too (an encoder that was changed): to make its output void would undo the good one.
    made = _made(rows, unnamed)
    orphans = [entry for entry in unnamed if (parts := layout.asset_parts(entry.path)) and parts not in made]
    kinds = (orphans, store.temporary(), superseded(store))
    old = [tuple(entry for entry in entries if entry.modified_s <= before_s) for entries in kinds]
    num_younger = sum(map(len, kinds)) - sum(map(len, old))
    older = Superseded() if keeps is None else superseded_assets(store, rows, assets, keeps())
    aged = tuple(asset for asset in older.assets if asset.entry.modified_s <= before_s)
    return _Found(
        orphans=old[0],
        temporary=old[1],
        beats=old[2],
        num_younger=num_younger + len(older.assets) - len(aged),
        superseded=aged,
        kept=older.kept,
    )


def _made(rows: pa.Table, unnamed: Iterable[Entry]) -> set[tuple[str, str, int]]:
    """Return the outputs that are made of the requests which some files are named after."""
    parts = map(layout.asset_parts, [entry.path for entry in unnamed])
    ids = pa.array(sorted({part[0] for part in parts if part}), pa.string())
    ok = rows.filter(pc.and_(pc.is_in(rows.column("id"), ids), pc.equal(rows.column("status"), "ok")))
    return {(row["id"], row["request_key"][:8], row["n"]) for row in ok.select(VOID.names).to_pylist()}


def _make_void(
    store: Store, lease: Lease, orphans: Iterable[Entry], superseded: Iterable[SupersededAsset] = ()
) -> None:
    parts = [layout.asset_parts(entry.path) for entry in orphans]
    outputs = [*filter(None, parts), *(asset.output for asset in superseded)]
    void = [dict(zip(VOID.names, output, strict=True)) for output in outputs]
    if void:
        run = layout.run_id(lease.holder.epoch, datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
        store.put_new(layout.redo(run), to_parquet(table(void, VOID)))


def _remove(store: Store, lease: Lease, entries: Iterable[Entry]) -> None:
    def remove(entry: Entry) -> None:
        lease.check()
        store.delete(entry.path)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(remove, entries))


def _report(found: _Found, *, is_deleted: bool) -> GcReport:
    return GcReport(
        orphans=tuple(entry.path for entry in found.orphans),
        temporary=tuple(entry.path for entry in found.temporary),
        beats=tuple(entry.path for entry in found.beats),
        freed_bytes=sum(
            entry.size_bytes
            for entry in (
                *found.orphans,
                *found.temporary,
                *found.beats,
                *(asset.entry for asset in found.superseded),
            )
        ),
        num_younger=found.num_younger,
        is_deleted=is_deleted,
        superseded=tuple(asset.entry.path for asset in found.superseded),
        kept=found.kept,
    )

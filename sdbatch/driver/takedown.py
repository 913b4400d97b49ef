"""Rights withdrawn: what was made from a source, or picked by an expression, is taken down, wherever it lies.

    sources, expression --> what they mean --> tombstone --> deliveries, assets, thumbnails, credentials, gallery

The tombstone is written first, so that a takedown which was killed shows, and the same call ends it. Each step may be
done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sdbatch.campaign import layout
from sdbatch.campaign.blanking import blank_pictures, mark_metadata, num_pictures
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.files import READ_THREADS, each_of
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.tombstones import Tombstones, put_tombstone, read_tombstones
from sdbatch.driver.gallery import told_of, write_gallery
from sdbatch.driver.judged import effective_rows
from sdbatch.driver.takedown_delivered import delivered_of, remove_delivered
from sdbatch.driver.takedown_select import Meant, MeantOutput, meant_by
from sdbatch.errors import JobError, UserError
from sdbatch.storage import Store

NOTE_CHARACTERS_MAX: Final = 2000


@dataclass(kw_only=True)
class TakedownReport:
    """What a takedown is about, removed when the caller asked for it.

    Attributes:
        output: URL of the campaign.
        outputs: The outputs, in the order of their files, each with what it was named by, or made from.
        assets: Files of them that are there.
        asset_bytes: Length of these.
        withdrawn_before: Outputs of them that were taken down before.
        ids: Ids of all rows concerned: those of the outputs, and those that failed with such a source.
        urls: Sources that are withdrawn, by URL.
        digests: Contents that are withdrawn.
        thumbnails: Pictures of outputs and sources in commits.
        credentials: Archives of the withdrawn sources' credentials.
        grids: Files of grids that show one of the outputs.
        delivered: Files at the targets that were named, by target.
        is_removed: Whether all of it was removed.
        warnings: What a person should know.
    """

    output: str
    outputs: list[MeantOutput] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    asset_bytes: int = 0
    withdrawn_before: int = 0
    ids: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    thumbnails: int = 0
    credentials: list[str] = field(default_factory=list)
    grids: list[str] = field(default_factory=list)
    delivered: dict[str, list[str]] = field(default_factory=dict)
    is_removed: bool = False
    warnings: list[str] = field(default_factory=list)


def take_down(
    store: Store,
    *,
    sources: Sequence[str] = (),
    where: str | None = None,
    delivered: Sequence[str] = (),
    by: str,
    note: str = "",
    yes: bool = False,
) -> TakedownReport:
    """List what was made from some sources, or is picked by an expression; when told so, remove it for good.

    Args:
        store: The campaign.
        sources: URLs as in a manifest, or digests of contents. What comes to be made from them is barred too.
        where: Expression over the columns of metadata, x_* among them.
        delivered: Targets of deliveries, or their YAML files.
        by: Who takes it down, for the record.
        note: Why, for the record.
        yes: Remove it. Without it nothing is written.

    Raises:
        JobError: When nothing is named, or nothing was made from a source, or a target has no delivery.
        CampaignHeld: When a driver holds the campaign and something is to be removed.
    """
    if not sources and where is None:
        raise JobError("takedown: name a source (--source URL or digest), or rows (--where EXPR)")
    if len(note) > NOTE_CHARACTERS_MAX:
        raise JobError(f"takedown: a note of {len(note)} characters is longer than {NOTE_CHARACTERS_MAX}")
    Campaign(store).newest_run()
    if not yes:
        return _looked_up(store, sources, where, delivered)[1]
    lease = acquire(store)
    try:
        # Looked up while nobody else drives, so that nothing is made in between.
        meant, report = _looked_up(store, sources, where, delivered)
        run = layout.run_id(lease.holder.epoch, datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
        if new := list(_tombstone(meant, read_tombstones(store), by, note)):
            put_tombstone(store, run, new)
        for place, names in report.delivered.items():
            if names:
                lease.check()
                if num_lost := remove_delivered(place, names, store.url, run):
                    report.warnings.append(
                        f"{place}: {num_lost} more of its files are not in it now: a delivery was cut off that made "
                        "them on another machine; deliver again to make them"
                    )
        _remove(store, meant, report, lease.check)
        lease.check()
        _show_again(store, lease.confirm)
    finally:
        lease.release()
    report.is_removed = True
    return report


def _looked_up(
    store: Store, sources: Sequence[str], where: str | None, delivered: Sequence[str]
) -> tuple[Meant, TakedownReport]:
    meant = meant_by(store, sources, where)
    before = read_tombstones(store)
    there = {entry.path: entry.size_bytes for entry in store.list(layout.ASSETS)}
    outputs = [meant.outputs[path] for path in sorted(meant.outputs)]
    names = {(one.request_key, one.n) for one in outputs}
    thumbnails = each_of(lambda item: num_pictures(store, *item), meant.rows.items())
    report = TakedownReport(
        output=store.url,
        outputs=outputs,
        assets=[one.asset for one in outputs if one.asset in there],
        asset_bytes=sum(there.get(one.asset, 0) for one in outputs),
        withdrawn_before=len(meant.outputs.keys() & before.paths),
        ids=sorted(meant.ids),
        urls=sorted(meant.urls),
        digests=sorted(meant.digests),
        thumbnails=sum(thumbnails),
        credentials=_credentials(store, meant),
        grids=_grids(store, meant),
        delivered={place: delivered_of(place, names, meant.contents) for place in dict.fromkeys(delivered)},
    )
    if not delivered and outputs:
        report.warnings.append(
            "files that were delivered stay where they are: --delivered TARGET names each place to remove them from"
        )
    return meant, report


def _tombstone(meant: Meant, before: Tombstones, by: str, note: str) -> Iterator[dict[str, Any]]:
    """Yield what no tombstone tells of yet."""
    common = {"at": datetime.now(UTC), "by": by, "note": note or None}
    for path in sorted(meant.outputs.keys() - before.paths):
        one = meant.outputs[path]
        values = {name: getattr(one, name) for name in ("id", "request_key", "n", "asset", "why")}
        yield {**common, **values, "sha256": one.sha256 or None}
    for url in sorted(meant.urls - before.urls):
        yield {**common, "source": url, "why": "source"}
    for digest in sorted(meant.digests - before.digests):
        yield {**common, "digest": digest, "why": "source"}


def _remove(store: Store, meant: Meant, report: TakedownReport, check: Callable[[], None]) -> None:
    def remove(path: str) -> None:
        check()
        store.delete(path)

    pages = [path for path in report.grids if path.endswith("/index.html")]
    others = [path for path in report.grids if path not in pages]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(remove, [*report.assets, *report.credentials, *others]))
    list(map(remove, pages))  # last, since the other files of a grid are found by its page
    for commit, rows in sorted(meant.rows.items()):
        check()
        blank_pictures(store, commit, rows)


def _show_again(store: Store, confirm: Callable[[], None]) -> None:
    """Say in metadata and gallery what was taken down."""
    mark_metadata(store, read_tombstones(store), confirm)
    campaign = Campaign(store)
    run = campaign.newest_run()
    try:
        store.stat(layout.GALLERY)
    except FileNotFoundError:
        return
    try:
        status = campaign.status_of(run) or {"state": "done"}
    except UserError:  # the pictures are there all the same
        status = {"state": "done"}
    confirm()
    # The campaign is held here: a run that its status calls running was killed.
    state = "dead" if status["state"] == "running" else status["state"]
    parts = effective_rows(store, run).parts(thumbnails=True)
    write_gallery(store, run, parts, state=state, progress=told_of(status))


def _credentials(store: Store, meant: Meant) -> list[str]:
    """Return the archives of withdrawn sources' credentials, which may show the source."""
    labels = {layout.credentials_label(digest) for digest in meant.digests}
    wanted = {layout.credentials(label, relation) for label in labels for relation in ("parentOf", "inputTo")}
    return [entry.path for entry in store.list(layout.CREDENTIALS) if entry.path in wanted]


def _grids(store: Store, meant: Meant) -> list[str]:
    """Return the files of grids whose page names one of the outputs."""
    folder = f"{layout.REPORT}/grids"
    paths = [entry.path for entry in store.list(folder)]
    pages = [path for path in paths if path.endswith("/index.html")]
    shown: Iterable[str] = (one.asset.rpartition("/")[2] for one in meant.outputs.values())
    names = [name.encode() for name in shown]
    found: list[str] = []
    for page, data in zip(pages, each_of(store.read, pages), strict=True):
        if any(name in data for name in names):
            found += [path for path in paths if path.startswith(page.removesuffix("index.html"))]
    return found

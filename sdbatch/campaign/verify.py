"""Does the campaign hold what it says? Commits, metadata and assets compared, each with each, both ways.

    commits --> every asset, there and whole             assets --> a commit that names each, else an orphan
    commits --> every row of the newest metadata         metadata --> the commit of each row
    commits --> every row of an index or a snapshot      an index, a snapshot --> the commits it covers

The commits are the truth; everything else was made from them, or for them. Rows are compared as columns, and assets are
read a few at a time: memory holds the commits' rows, never an asset's bytes for long.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.checked import UnreadableFile
from sdbatch.campaign.committed import Committed, Sum, read_committed, sums_by_commit
from sdbatch.campaign.compacted import metadata_findings
from sdbatch.campaign.effective import winners
from sdbatch.campaign.files import READ_THREADS, each_of
from sdbatch.campaign.findings import Finding, file_finding, output_finding
from sdbatch.campaign.history import snapshot_tables
from sdbatch.campaign.read import read_part, read_record, read_status
from sdbatch.campaign.schema import INDEX
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.errors import AssetConflict
from sdbatch.storage import Entry, Store
from sdbatch.verdicts import NO_VERDICTS, Verdicts

CHECKED: Final = (
    INDEX.append(pa.field("asset", pa.string()))
    .append(pa.field("sha256", pa.string()))
    .append(pa.field("asset_bytes", pa.int64()))
)
"""Columns of a commit that are compared."""


BLOCK_ASSETS: Final = 32
"""Assets that one call of a thread reads, one after the other: handing over each alone takes as long as its hash."""
SMALL_BYTES: Final = 1 << 16
"""Mean length below which assets of a disk are read by one thread: eight of them take three times its CPU, and longer,
as each read and each hash is over sooner than the next thread gets the interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The result of `verify`.

    Attributes:
        rows_ok: Assets that commits say are made.
        assets_hashed: How many of them were read and hashed.
        metadata_rows: Rows of the newest compacted metadata that were compared.
        findings: Every disagreement; a good campaign has none.
        orphans: Assets no commit names: harmless, left by a worker killed before its commit; `gc` removes them.
        late: Commits of runs that a snapshot tells of, and that are not in it: harmless, they count nowhere. They came
            from a worker that was given up.
        withdrawn: Assets that commits name and that were taken down.
    """

    rows_ok: int
    assets_hashed: int
    metadata_rows: int
    findings: tuple[Finding, ...]
    orphans: tuple[str, ...]
    late: tuple[str, ...] = ()
    withdrawn: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing disagrees."""
        return not self.findings


def verify_campaign(
    store: Store,
    sample: float | None = None,
    seed: int | None = None,
    verdicts_of: Callable[[Sequence[str]], Verdicts] = lambda _: NO_VERDICTS,
) -> VerifyReport:
    """Compare a campaign's commits, snapshot, indexes, metadata and assets.

    Args:
        store: The campaign.
        sample: Hash only so many assets, or below 1.0 that share of them, chosen at random; presence and length are
            checked for all. None hashes all.
        seed: Seed of the random choice.
        verdicts_of: Returns what people decided in some files of decisions: the metadata were made with those alone.
    """
    unreadable: list[str] = []
    assets = _assets(store.list(layout.ASSETS))
    committed = read_committed(store, CHECKED, unreadable)
    findings = [file_finding("commit", path, "is not readable; remove it and run again") for path in unreadable]
    counting = winners(committed.rows)
    made = counting.filter(pc.equal(counting.column("status"), "ok"))
    tombstones = read_tombstones(store)
    is_withdrawn = tombstones.cover(made)
    expected, withdrawn = made.filter(pa.array(~is_withdrawn)), made.filter(pa.array(is_withdrawn))
    is_named = pc.is_in(assets.column("asset"), committed.rows.filter(_is_ok(committed.rows)).column("asset"))
    orphans = assets.filter(pc.invert(is_named)).column("asset").to_pylist()
    whole, absent = _present(expected, assets)
    findings += absent
    findings += _still_there(withdrawn, assets)
    chosen = _sample(whole, sample, seed)
    findings += _digest_findings(store, chosen)
    findings += _conflict_findings(counting, orphans)
    findings += _snapshot_findings(store, committed, unreadable)
    findings += _index_findings(store, committed)
    findings += _record_findings(store, committed)
    found, metadata_rows = metadata_findings(store, committed.rows, verdicts_of, tombstones)
    return VerifyReport(
        rows_ok=expected.num_rows,
        assets_hashed=chosen.num_rows,
        metadata_rows=metadata_rows,
        findings=(*findings, *found),
        orphans=tuple(orphans),
        late=committed.late,
        withdrawn=withdrawn.num_rows,
    )


# --- commits and assets ---------------------------------------------------------------------------------------------


def _assets(entries: Sequence[Entry]) -> pa.Table:
    """Return the files under `assets/` as columns."""
    paths = pa.array([entry.path for entry in entries], pa.string())
    return pa.table({"asset": paths, "size_bytes": pa.array([entry.size_bytes for entry in entries], pa.int64())})


def _is_ok(rows: pa.Table) -> pa.ChunkedArray:
    return pc.equal(rows.column("status"), "ok")


def _present(expected: pa.Table, assets: pa.Table) -> tuple[pa.Table, list[Finding]]:
    """Return the rows whose asset is there at its full length, and a finding for each of the others."""
    place = pc.index_in(expected.column("asset"), assets.column("asset"))
    size_bytes = assets.column("size_bytes").take(place)
    is_long = pc.fill_null(pc.equal(size_bytes, expected.column("asset_bytes")), False)
    wrong = expected.append_column("size_bytes", size_bytes).filter(pc.invert(is_long))
    findings = [
        output_finding("missing", row, "is not in the store")
        if row["size_bytes"] is None
        else output_finding("damaged", row, f"has {row['size_bytes']} bytes, committed were {row['asset_bytes']}")
        for row in wrong.to_pylist()
    ]
    return expected.filter(is_long), findings


def _still_there(withdrawn: pa.Table, assets: pa.Table) -> Iterator[Finding]:
    """Name what was taken down and is there all the same: the takedown was interrupted, or somebody put it back."""
    is_there = pc.is_in(withdrawn.column("asset"), assets.column("asset"))
    for row in withdrawn.filter(is_there).to_pylist():
        yield output_finding("withdrawn", row, "was taken down and is still there; take it down again")


def _sample(rows: pa.Table, sample: float | None, seed: int | None) -> pa.Table:
    if sample is None:
        return rows
    count = math.ceil(sample * rows.num_rows) if isinstance(sample, float) and sample <= 1 else int(sample)
    chosen = random.Random(seed).sample(range(rows.num_rows), min(count, rows.num_rows))  # noqa: S311 -- a sample, not a secret
    return rows.take(pa.array(chosen, pa.int64()))


def _digest_findings(store: Store, rows: pa.Table) -> Iterator[Finding]:
    def digests(paths: Sequence[str]) -> list[str | None]:
        # None stands for a file that was removed since it was listed.
        contents = store.read_each(paths)
        return [None if content is None else hashlib.sha256(content).hexdigest() for content in contents]

    paths = rows.column("asset").to_pylist()
    blocks = (paths[start : start + BLOCK_ASSETS] for start in range(0, len(paths), BLOCK_ASSETS))
    is_small = store.is_local and (pc.mean(rows.column("asset_bytes")).as_py() or 0) < SMALL_BYTES
    num_threads = 1 if is_small else READ_THREADS
    stored = pa.array(chain.from_iterable(each_of(digests, blocks, num_threads)), pa.string())
    differs = pc.fill_null(pc.not_equal(rows.column("sha256"), stored), True)
    for row in rows.append_column("stored", stored).filter(differs).to_pylist():
        if row["stored"] is None:
            yield output_finding("missing", row, "is not in the store")
        else:
            yield output_finding("damaged", row, f"has sha256 {row['stored']}, committed was {row['sha256']}")


def _conflict_findings(counting: pa.Table, orphans: Sequence[str]) -> Iterator[Finding]:
    """Name the files that kept a request from being made: stored under an asset's name, and not it."""
    in_the_way = {parts: path for path in orphans if (parts := layout.asset_parts(path))}
    is_conflict = pc.fill_null(pc.equal(counting.column("error_type"), AssetConflict.__name__), False)
    for row in counting.filter(is_conflict).to_pylist():
        place = (row["id"], row["request_key"][:8], row["n"])
        if place in in_the_way:
            yield output_finding(
                "damaged", {**row, "asset": in_the_way[place]}, "stands where this request's asset should"
            )


# --- commits and what was made from them ----------------------------------------------------------------------------


def _snapshot_findings(store: Store, committed: Committed, unreadable: Iterable[str]) -> Iterator[Finding]:
    """Compare the snapshot that a resume reads with the commits it tells of."""
    for path in committed.torn:
        yield file_finding("snapshot", path, "is not readable; remove it, an older one or the commits take its place")
    if committed.snapshot is None:
        return
    rows = committed.without_void_at(store, committed.snapshot)
    path = layout.snapshot(committed.snapshot)
    for commit in _differing(committed.in_snapshot, sums_by_commit(rows)):
        yield file_finding(
            "snapshot", path, f"and {commit} differ; remove it, an older one or the commits take its place"
        )
    there = {commit for files in committed.runs for commit in files.commits}
    gone = sorted(committed.in_snapshot.keys() - there - set(unreadable))
    if gone:
        for table in snapshot_tables(store, committed.snapshot):
            told = table.filter(pc.is_in(table.column("commit"), pa.array(gone, pa.string())))
            for row in committed.void.left_out_of(told).to_pylist():
                detail = f"is not there, though {path} tells of it; `sdbatch redo` makes its rows again"
                yield output_finding("missing", {**row, "asset": row["commit"]}, detail)


def _index_findings(store: Store, committed: Committed) -> Iterator[Finding]:
    """Compare each index with the commits it covers; one that is there no longer counts nowhere."""
    sums = sums_by_commit(committed.every_row)

    def compare(path: str) -> list[Finding]:
        try:
            told = sums_by_commit(read_part(store, path, INDEX))
        except (pa.ArrowException, ValueError) as error:
            return [file_finding("index", path, f"is not readable ({error}); remove it, the commits are the truth")]
        return [
            file_finding("index", path, f"and {commit} differ; remove it, the commits are the truth")
            for commit in _differing(told, sums)
        ]

    for findings in each_of(compare, [path for files in committed.runs for path in files.indexes]):
        yield from findings


def _record_findings(store: Store, committed: Committed) -> Iterator[Finding]:
    """Name the records of runs that cannot be read, of a killed one its status: money and times are added up from them.

    The status of a run that ended is read by nobody but those who ask for it, and they are told.
    """

    def look(run: str) -> tuple[str, str] | None:
        for path, read in ((layout.run_json(run), read_record), (layout.status_json(run), read_status)):
            try:
                read(store, run)
            except FileNotFoundError:  # its driver was killed
                continue
            except UnreadableFile as error:
                return path, str(error).removeprefix(f"{store.url}/{path}: ")
            return None
        return None

    for fault in filter(None, each_of(look, [files.run for files in committed.runs])):
        yield file_finding("record", *fault)


def _differing(told: Mapping[str, Sum], sums: Mapping[str, Sum]) -> list[str]:
    return sorted(commit for commit in told.keys() & sums.keys() if told[commit] != sums[commit])

"""Does the campaign hold what it says? Commits, metadata and assets compared, each with each, both ways.

    commits --> every asset, there and whole             assets --> a commit that names each, else an orphan
    commits --> every row of the newest metadata         metadata --> the commit of each row
    commits --> every row of an index                    an index --> the commits it covers

The commits are the truth; everything else was made from them, or for them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.read import READ_THREADS, latest_run, read_json, read_rows, winners, without_void
from sdbatch.campaign.schema import INDEX, from_parquet
from sdbatch.errors import AssetConflict
from sdbatch.storage import Entry, Store

CHECKED: Final = (
    INDEX.append(pa.field("asset", pa.string()))
    .append(pa.field("sha256", pa.string()))
    .append(pa.field("asset_bytes", pa.int64()))
)
"""Columns of a commit that are compared."""
_SAME = ("status", "asset", "sha256")
_OutputPlace = tuple[str, str, int | None]
_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not agree.

    Attributes:
        kind: `missing`, `damaged` (other bytes than committed, or a file that stands in an asset's way), `metadata`
            (rows and commits differ), `commit`, `index` or `requests` (that file; `asset` is its path).
        asset: Its path; "" when no single file is meant.
        id: Of the request.
        request_key: Of the request.
        n: Output number; None when the request is meant as a whole.
        detail: What was found.
    """

    kind: str
    asset: str
    id: str
    request_key: str
    n: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        rows_ok: Assets that commits say are made.
        assets_hashed: How many of them were read and hashed.
        metadata_rows: Rows of the newest compacted metadata that were compared.
        findings: What does not agree; empty is good.
        orphans: Assets no commit names: harmless, left by a worker killed before its commit; `gc` removes them.
    """

    rows_ok: int
    assets_hashed: int
    metadata_rows: int
    findings: tuple[Finding, ...]
    orphans: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether all agrees."""
        return not self.findings


def verify_campaign(store: Store, sample: float | None = None, seed: int | None = None) -> VerifyReport:
    """Compare a campaign's commits, indexes, metadata and assets.

    Args:
        store: The campaign.
        sample: Hash only so many assets, or below 1.0 that share of them, chosen at random; presence and length are
            checked for all. None hashes all.
        seed: Of the choice.
    """
    unreadable: list[str] = []
    assets = {entry.path: entry for entry in store.list("assets")}
    every_row = read_rows(store, CHECKED, unreadable)
    rows = without_void(every_row, store)
    findings = [_file_finding("commit", path, "is not readable; remove it and run again") for path in unreadable]
    expected = {row["asset"]: row for row in winners(rows).to_pylist() if row["status"] == "ok"}
    named = {row["asset"]: row for row in rows.to_pylist() if row["status"] == "ok"}
    orphans = sorted(assets.keys() - named.keys())
    findings += _presence_findings(expected, assets)
    whole = [row for row in expected.values() if row["asset"] in assets and _is_long(row, assets[row["asset"]])]
    chosen = _sample(whole, sample, seed)
    findings += _digest_findings(store, chosen)
    findings += _conflict_findings(rows, orphans)
    findings += _index_findings(store, every_row)
    found, metadata_rows = _metadata_findings(store, rows)
    return VerifyReport(
        rows_ok=len(expected),
        assets_hashed=len(chosen),
        metadata_rows=metadata_rows,
        findings=(*findings, *found),
        orphans=tuple(orphans),
    )


# --- commits and assets ---------------------------------------------------------------------------------------------


def _presence_findings(expected: Mapping[str, _Row], assets: Mapping[str, Entry]) -> Iterator[Finding]:
    for path, row in expected.items():
        if path not in assets:
            yield _finding("missing", row, "is not in the store")
        elif not _is_long(row, assets[path]):
            detail = f"has {assets[path].size_bytes} bytes, committed were {row['asset_bytes']}"
            yield _finding("damaged", row, detail)


def _is_long(row: _Row, entry: Entry) -> bool:
    return bool(entry.size_bytes == row["asset_bytes"])


def _sample(rows: Sequence[_Row], sample: float | None, seed: int | None) -> Sequence[_Row]:
    if sample is None:
        return rows
    count = math.ceil(sample * len(rows)) if isinstance(sample, float) and sample <= 1 else int(sample)
    return random.Random(seed).sample(rows, min(count, len(rows)))  # noqa: S311 -- a sample, not a secret


def _digest_findings(store: Store, rows: Sequence[_Row]) -> Iterator[Finding]:
    def digest(row: _Row) -> str | None:
        try:
            return hashlib.sha256(store.read(row["asset"])).hexdigest()
        except FileNotFoundError:  # removed since it was listed
            return None

    with ThreadPoolExecutor(READ_THREADS) as pool:
        for row, found in zip(rows, pool.map(digest, rows), strict=True):
            if found is None:
                yield _finding("missing", row, "is not in the store")
            elif found != row["sha256"]:
                yield _finding("damaged", row, f"has sha256 {found}, committed was {row['sha256']}")


def _conflict_findings(rows: pa.Table, orphans: Sequence[str]) -> Iterator[Finding]:
    """Name the files that kept a request from being made: stored under an asset's name, and not it."""
    in_the_way = {parts: path for path in orphans if (parts := layout.asset_parts(path))}
    for row in winners(rows).to_pylist():
        place = (row["id"], row["request_key"][:8], row["n"])
        if row["error_type"] == AssetConflict.__name__ and place in in_the_way:
            yield _finding("damaged", {**row, "asset": in_the_way[place]}, "stands where this request's asset should")


# --- commits and what was made from them ----------------------------------------------------------------------------


def _index_findings(store: Store, rows: pa.Table) -> Iterator[Finding]:
    """Compare each index with the commits it covers; one that is there no longer counts nowhere."""
    names = ("id", "request_key", "n", "status")
    committed: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows.to_pylist():
        committed.setdefault(row["commit"], []).append(tuple(row[name] for name in names))
    for entry in store.list(layout.RUNS):
        if not layout.is_index(entry.path):
            continue
        try:
            table = from_parquet(store.read(entry.path)).cast(INDEX)
        except (pa.ArrowException, ValueError) as error:
            yield _file_finding("index", entry.path, f"is not readable ({error}); remove it, the commits are the truth")
            continue
        told: dict[str, list[tuple[Any, ...]]] = {}
        for row in table.to_pylist():
            told.setdefault(row["commit"], []).append(tuple(row[name] for name in names))
        for commit in sorted(told.keys() & committed.keys()):
            if sorted(committed[commit], key=repr) != sorted(told[commit], key=repr):
                yield _file_finding("index", entry.path, f"and {commit} differ; remove it, the commits are the truth")


def _metadata_findings(store: Store, rows: pa.Table) -> tuple[list[Finding], int]:
    """Compare the newest compacted metadata with the commits that its run could see."""
    try:
        latest = read_json(store, layout.LATEST)
        run, folder, claimed = str(latest["run_id"]), str(latest["path"]).rstrip("/"), int(latest["rows"])
    except FileNotFoundError:
        ended = latest_run(store) if _has_ended(store) else None
        return ([_file_finding("metadata", layout.LATEST, f"is not there, though {ended} ended")] if ended else []), 0
    except (ValueError, KeyError, TypeError) as error:
        return [_file_finding("metadata", layout.LATEST, f"is not readable ({error!r}); run again")], 0
    findings: list[Finding] = []
    effective = _effective(store, run, rows, findings)
    seen: dict[_OutputPlace, _Row] = {}
    num_rows = 0
    for entry in store.list(folder):
        try:
            table = from_parquet(store.read(entry.path), ["id", "request_key", "n", *_SAME])
        except (pa.ArrowException, ValueError) as error:
            findings.append(_file_finding("metadata", entry.path, f"is not readable ({error})"))
            continue
        num_rows += table.num_rows
        for row in table.to_pylist():
            place = _place(row)
            if place in seen:
                findings.append(_finding("metadata", row, f"{entry.path} has this output twice"))
            elif place not in effective:
                findings.append(_finding("metadata", row, f"{entry.path} has a row that no commit has"))
            elif differing := [name for name in _SAME if row[name] != effective[place][name]]:
                findings.append(_finding("metadata", row, f"{entry.path} and its commit differ in {differing[0]}"))
            seen[place] = row
    findings += [
        _finding("metadata", row, f"is committed and not in {folder}/")
        for place, row in effective.items()
        if place not in seen
    ]
    if num_rows != claimed:
        detail = f"has {num_rows} rows, {layout.LATEST} says {claimed}"
        findings.append(_file_finding("metadata", f"{folder}/", detail))
    return findings, num_rows


def _effective(store: Store, run: str, rows: pa.Table, findings: list[Finding]) -> dict[_OutputPlace, _Row]:
    """Return the outcomes a run's metadata must hold: those of its manifest, committed by it or before."""
    commits = rows.column("commit")
    before = pa.array([(layout.run_of(path) or "") <= run for path in commits.to_pylist()], type=pa.bool_())
    by_request: dict[tuple[str, str], list[_Row]] = {}
    for row in winners(rows.filter(before)).to_pylist():
        by_request.setdefault((row["id"], row["request_key"]), []).append(row)
    effective: dict[_OutputPlace, _Row] = {}
    for entry in store.list(f"{layout.RUNS}/{run}/requests"):
        try:
            table = from_parquet(store.read(entry.path), ["id", "request_key", "num_outputs"])
        except (pa.ArrowException, ValueError) as error:
            findings.append(_file_finding("requests", entry.path, f"is not readable ({error}); run again"))
            continue
        for asked in table.to_pylist():
            for row in by_request.get((asked["id"], asked["request_key"]), ()):
                if row["n"] is None or row["n"] < asked["num_outputs"]:
                    effective[_place(row)] = row
    return effective


def _has_ended(store: Store) -> bool:
    """Whether the newest run with a manifest wrote its record as one that ends with metadata."""
    run = latest_run(store)
    try:
        return run is not None and read_json(store, layout.run_json(run)).get("state") in {"done", "failed"}
    except (FileNotFoundError, ValueError):
        return False


def _place(row: _Row) -> _OutputPlace:
    return row["id"], row["request_key"], row["n"]


def _finding(kind: str, row: _Row, detail: str) -> Finding:
    return Finding(
        kind=kind, asset=row["asset"] or "", id=row["id"], request_key=row["request_key"], n=row["n"], detail=detail
    )


def _file_finding(kind: str, path: str, detail: str) -> Finding:
    return Finding(kind=kind, asset=path, id="", request_key="", n=None, detail=detail)

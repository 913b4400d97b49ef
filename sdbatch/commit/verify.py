"""Does the campaign hold what it says? Commits, metadata and assets compared both ways.

commits --> what must be there --> re-hash every asset, or a sample        assets nobody refers to --> orphans
metadata/latest.json --> the same rows, the same digests
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sdbatch.commit import layout
from sdbatch.commit.read import READ_THREADS, read_commit, read_index, read_json, winners
from sdbatch.commit.schema import from_parquet
from sdbatch.storage import Store

_UNREADABLE = "is not readable; remove it and run again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not agree.

    Attributes:
        kind: `missing`, `damaged` (other bytes than committed), `metadata` (row and commit differ) or `commit` (not
            readable; `asset` is its path).
        asset: Its path; "" when a whole metadata file is meant.
        id: Of the request.
        request_key: Of the request.
        n: Output number.
        detail: What was found.
    """

    kind: str
    asset: str
    id: str
    request_key: str
    n: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        rows_ok: Assets that commits say are made.
        assets_hashed: How many of them were read and hashed.
        findings: What does not agree; empty is good.
        orphans: Assets no commit refers to: harmless, left by a worker that was killed before its commit.
    """

    rows_ok: int
    assets_hashed: int
    findings: tuple[Finding, ...]
    orphans: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether all agrees."""
        return not self.findings


def verify_campaign(store: Store, sample: int | None = None, seed: int | None = None) -> VerifyReport:
    """Compare a campaign's commits, metadata and assets.

    Args:
        store: The campaign.
        sample: Hash only so many assets, chosen at random; presence and length are checked for all. None hashes all.
        seed: Of the choice.
    """
    unreadable: list[str] = []
    expected = _expected(store, unreadable)
    found = {entry.path: entry.size_bytes for entry in store.list("assets")}
    findings = [
        Finding(
            kind="commit", asset=path, id="", request_key="", n=0, detail="is not readable; remove it and run again"
        )
        for path in sorted(unreadable)
    ]
    to_hash = []
    for asset, row in expected.items():
        if asset not in found:
            findings.append(_finding("missing", row, "is not in the store"))
        elif found[asset] != row["asset_bytes"]:
            findings.append(_finding("damaged", row, f"has {found[asset]} bytes, committed were {row['asset_bytes']}"))
        else:
            to_hash.append(row)
    if sample is not None and sample < len(to_hash):
        to_hash = random.Random(seed).sample(to_hash, sample)  # noqa: S311 -- a sample, not a secret
    with ThreadPoolExecutor(READ_THREADS) as pool:
        digests = pool.map(lambda row: hashlib.sha256(store.read(row["asset"])).hexdigest(), to_hash)
        for row, digest in zip(to_hash, digests, strict=True):
            if digest != row["sha256"]:
                findings.append(_finding("damaged", row, f"has sha256 {digest}, committed was {row['sha256']}"))
    findings.extend(_metadata_findings(store, expected))
    return VerifyReport(
        rows_ok=len(expected),
        assets_hashed=len(to_hash),
        findings=tuple(findings),
        orphans=tuple(sorted(found.keys() - expected.keys())),
    )


def _expected(store: Store, unreadable: list[str]) -> dict[str, dict[str, Any]]:
    """Return the committed row of every asset, by path."""
    columns = ["id", "request_key", "n", "status", "asset", "sha256", "asset_bytes"]
    index = winners(read_index(store, unreadable))
    expected: dict[str, dict[str, Any]] = {}
    chosen = set(zip(*(index.column(name).to_pylist() for name in ("commit", "id", "request_key", "n")), strict=True))
    commits = sorted(set(index.column("commit").to_pylist()))
    with ThreadPoolExecutor(READ_THREADS) as pool:
        tables: list[pa.Table] = list(pool.map(lambda path: read_commit(store, path, columns), commits))
    for commit, table in zip(commits, tables, strict=True):
        for row in table.to_pylist():
            if row["status"] == "ok" and (commit, row["id"], row["request_key"], row["n"]) in chosen:
                expected[row["asset"]] = row
    return expected


def _metadata_findings(store: Store, expected: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Compare the newest compacted metadata with the commits."""
    try:
        latest = read_json(store, layout.LATEST)
    except FileNotFoundError:
        return []
    findings = []
    num_rows = 0
    for entry in store.list(latest["path"].rstrip("/")):
        table = from_parquet(store.read(entry.path), ["id", "request_key", "n", "status", "asset", "sha256"])
        num_rows += table.num_rows
        for row in table.to_pylist():
            if row["status"] != "ok":
                continue
            committed = expected.get(row["asset"])
            if committed is None:
                findings.append(_finding("metadata", row, f"{entry.path} names an asset no commit has"))
            elif committed["sha256"] != row["sha256"]:
                findings.append(_finding("metadata", row, f"{entry.path} and its commit differ in sha256"))
    if num_rows != latest["rows"]:
        detail = f"{latest['path']} has {num_rows} rows, latest.json says {latest['rows']}"
        findings.append(Finding(kind="metadata", asset="", id="", request_key="", n=0, detail=detail))
    return findings


def _finding(kind: str, row: Mapping[str, Any], detail: str) -> Finding:
    return Finding(
        kind=kind, asset=row["asset"], id=row["id"], request_key=row["request_key"], n=row["n"], detail=detail
    )

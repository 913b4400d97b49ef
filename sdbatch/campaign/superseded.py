"""Assets of older keys: a row of the newest manifest was edited, and nothing wants what was made of it before.

    rows that count + the newest manifest + keepers --> superseded_assets() --> Superseded

Rows that the manifest has no longer are left alone: a run of a part, or of another table, would call them superseded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.effective import ASKED
from sdbatch.campaign.files import newest_run_with_manifest, request_parts
from sdbatch.campaign.read import read_requests
from sdbatch.campaign.schema import INDEX
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.storage import Entry, Store

SUPERSEDED_READ: Final = (
    INDEX.append(pa.field("asset", pa.string()))
    .append(pa.field("sha256", pa.string()))
    .append(pa.field("source_digests", pa.list_(pa.string())))
)
"""Columns of a commit that are looked at."""
SOURCE: Final = "is a source of what the manifest wants"
LEFT: Final = "is of a row that the manifest has no longer"
ALONE: Final = "is all that its row has, since what the manifest asks for now is not made"

Keeper = Callable[[Mapping[str, Any]], bool]
"""Whether an output (id, request_key, n, asset, sha256) stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededAsset:
    """An asset that goes.

    Attributes:
        entry: Its file.
        output: Id, request key and number.
    """

    entry: Entry
    output: tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """What nothing wants any more.

    Attributes:
        assets: Assets that may go.
        kept: Number of the others, by why they stay.
    """

    assets: tuple[SupersededAsset, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)


def superseded_assets(
    store: Store, rows: pa.Table, assets: Sequence[Entry], keepers: Mapping[str, Keeper]
) -> Superseded:
    """Return the assets of older keys.

    Args:
        store: The campaign.
        rows: Outcomes that count; columns as in `SUPERSEDED_READ`.
        assets: The files that are there.
        keepers: Say what stays all the same, by why.
    """
    run = newest_run_with_manifest(store)
    wanted = _keys(store, run) if run else {}
    entries = {entry.path: entry for entry in assets}
    made = rows.filter(pc.equal(rows.column("status"), "ok"))
    made = made.filter(pa.array(~read_tombstones(store).cover(made)))
    ids, keys = (made.column(name).to_pylist() for name in ("id", "request_key"))
    is_wanted = [wanted.get(name) == key for name, key in zip(ids, keys, strict=True)]
    made_anew = {name for name, is_now in zip(ids, is_wanted, strict=True) if is_now}
    used = set(pc.list_flatten(made.filter(pa.array(is_wanted, pa.bool_())).column("source_digests")).to_pylist())
    older = made.filter(pa.array([not one for one in is_wanted], pa.bool_()))
    reasons: dict[str, Keeper] = {
        LEFT: lambda row: row["id"] not in wanted,
        ALONE: lambda row: row["id"] not in made_anew,
        SOURCE: lambda row: f"sha256:{row['sha256']}" in used,
        **keepers,
    }
    found: dict[str, SupersededAsset] = {}
    kept: dict[str, str] = {}
    for row in older.select(["id", "request_key", "n", "asset", "sha256"]).to_pylist():
        entry = entries.get(row["asset"] or "")
        if entry is None or layout.asset_parts(entry.path) is None:
            continue
        why = next((why for why, holds in reasons.items() if holds(row)), None)
        if why is None:
            found[entry.path] = SupersededAsset(entry=entry, output=(row["id"], row["request_key"], row["n"]))
        else:
            kept[entry.path] = why
    return Superseded(assets=tuple(found[path] for path in sorted(found)), kept=Counter(kept.values()))


def _keys(store: Store, run: str) -> dict[str, str]:
    """Return the request key of each row of a run's manifest."""
    keys: dict[str, str] = {}
    for path in request_parts(store, run):
        part = read_requests(store, path, ASKED)
        keys.update(zip(*(part.column(name).to_pylist() for name in ("id", "request_key")), strict=True))
    return keys

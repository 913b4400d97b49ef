"""What was delivered of outputs that are taken down: found at a target, and removed there.

    target + contents --> delivered_of() --> names        names --> remove_delivered() --> ledger, files, table

The ledger is written first. It is the target's own tombstone: what it calls removed is missed by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sdbatch.deliver import ledger
from sdbatch.deliver.index import Rows
from sdbatch.deliver.settings import ZIP_BYTES_MAX, ZIP_SUFFIX, read_delivery
from sdbatch.deliver.targets import FolderTarget, Target, ZipTarget, archive_bytes
from sdbatch.driver.verify_delivery import opened, place_of
from sdbatch.job import Storage
from sdbatch.storage import open_campaign, split


def delivered_of(place: str, outputs: Collection[tuple[str, int]], contents: Collection[str]) -> list[str]:
    """Return the names of the files at a target that were made from some outputs, or from something withdrawn.

    Args:
        place: URL or folder of the target, or the delivery's YAML file.
        outputs: (request key, n).
        contents: Digests of withdrawn sources and of the outputs' files.

    Raises:
        JobError: When no delivery made anything there.
    """
    with opened(*place_of(place)) as target:
        return sorted(name for name, row in target.rows.items() if _is_of(row, outputs, contents))


def _is_of(row: Mapping[str, Any], outputs: Collection[tuple[str, int]], contents: Collection[str]) -> bool:
    made_from = {f"sha256:{row['asset_sha256']}", *(row.get("source_digests") or ())}
    return (row.get("request_key"), row.get("n")) in outputs or not made_from.isdisjoint(contents)


def remove_delivered(place: str, names: Collection[str], campaign: str, takedown: str) -> None:
    """Remove files at a target, and say so in its ledger.

    Args:
        place: See `delivered_of`.
        names: Names of the files.
        campaign: URL of the campaign.
        takedown: Name of the takedown, for the ledger.
    """
    url, storage = place_of(place)
    with opened(url, storage) as there:
        before = there.rows
    for delivery in sorted({before[name]["delivery"] for name in names if name in before}):
        target = _target(url, storage, place, delivery, before)
        rows = target.read_rows()
        mine = {name for name in names if name in rows and rows[name]["delivery"] == delivery}
        kept = {name: row for name, row in rows.items() if name not in mine}
        told = ledger.read_ledger(target.store, target.ledgers).told.keys()
        head = {"delivery": delivery, "campaign": campaign, "to": url, "takedown": takedown}
        ledger.written(target.store, target.ledgers, head, kept, sorted(told & mine), ledger.stamp_now())
        target.remove(sorted(mine), rows)
        target.complete(rows)
        target.write_rows(rows)
        target.tidy()


def _target(url: str, storage: Mapping[str, Storage], place: str, delivery: str, rows: Rows) -> Target:
    if not url.lower().endswith(ZIP_SUFFIX):
        return FolderTarget(open_campaign(url, storage), lambda row: bool(row["delivery"] == delivery))
    folder, name = split(url)
    is_settings = place.endswith((".yaml", ".yml"))
    # An address does not say how long an archive may be: they stay as many as they are.
    longest = max(archive_bytes(rows).values(), default=ZIP_BYTES_MAX)
    bytes_max = read_delivery(place).zip_bytes_max if is_settings else longest
    return ZipTarget(open_campaign(folder, storage), name, bytes_max)

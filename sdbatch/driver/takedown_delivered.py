"""What was delivered of outputs that are taken down: found at a target, and removed there.

    target + contents --> delivered_of() --> names        names --> remove_delivered() --> ledger, files, table

Where a delivery was cut off, its table may tell of another file than the one that lies there: such a file is asked
itself. The ledger is written first. It is the target's own tombstone: what it calls removed is missed by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sdbatch.deliver import ledger
from sdbatch.deliver.index import PLANNED, Rows
from sdbatch.deliver.settings import ZIP_BYTES_MAX, ZIP_SUFFIX, read_delivery
from sdbatch.deliver.targets import FolderTarget, ZipTarget, archive_bytes
from sdbatch.driver.verify_delivery import opened, place_of
from sdbatch.job import Storage
from sdbatch.packets import packet_in
from sdbatch.provenance.xmp import document_of, read_packet
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
    url, storage = place_of(place)
    with opened(url, storage) as there:
        told = {name for name, row in there.rows.items() if _is_of(row, outputs, contents)}
    target = _target(url, storage, place, there.rows)
    documents = {document_of(*output) for output in outputs}
    lying = {name for name, data in target.doubtful(target.read_rows()) if _document(data) in documents}
    return sorted(told | lying)


def _document(data: bytes) -> str:
    return str(read_packet(packet_in(data)).get("xmpMM:DocumentID", ""))


def _is_of(row: Mapping[str, Any], outputs: Collection[tuple[str, int]], contents: Collection[str]) -> bool:
    made_from = {f"sha256:{row['asset_sha256']}", *(row.get("source_digests") or ())}
    return (row.get("request_key"), row.get("n")) in outputs or not made_from.isdisjoint(contents)


def remove_delivered(place: str, names: Collection[str], campaign: str, takedown: str) -> int:
    """Remove files at a target, and say so in its ledger.

    Returns how many other files an archive lost: those that a delivery which was cut off on another machine had made
    there, and not yet put into it.

    Args:
        place: See `delivered_of`.
        names: Names of the files.
        campaign: URL of the campaign.
        takedown: Name of the takedown, for the ledger.
    """
    url, storage = place_of(place)
    with opened(url, storage) as there:
        before = there.rows
    num_lost = 0
    is_zip = url.lower().endswith(ZIP_SUFFIX)  # all its files are of one delivery, also those without a row
    for delivery in sorted({row["delivery"] for name, row in before.items() if is_zip or name in names}):
        target = _target(url, storage, place, before, delivery)
        rows = target.read_rows()
        mine = {name for name in names if is_zip or rows.get(name, {}).get("delivery") == delivery}
        kept = {name: row for name, row in rows.items() if name not in mine}
        lost = set(target.lost(kept))
        for name in lost:
            rows[name]["status"] = PLANNED
        told = ledger.read_ledger(target.store, target.ledgers).told.keys()
        head = {"delivery": delivery, "campaign": campaign, "to": url, "takedown": takedown}
        ledger.written(target.store, target.ledgers, head, kept, sorted(told & (mine | lost)), ledger.stamp_now())
        target.remove(sorted(mine & rows.keys()), rows)
        target.complete(rows)
        target.write_rows(rows)
        target.tidy()
        num_lost += len(lost)
    return num_lost


def _target(
    url: str, storage: Mapping[str, Storage], place: str, rows: Rows, delivery: str | None = None
) -> FolderTarget | ZipTarget:
    """Return a target; a folder as one delivery owns it, without a delivery to read it."""
    if not url.lower().endswith(ZIP_SUFFIX):
        return FolderTarget(open_campaign(url, storage), lambda row: bool(row["delivery"] == delivery))
    folder, name = split(url)
    is_settings = place.endswith((".yaml", ".yml"))
    # An address does not say how long an archive may be: they stay as many as they are.
    lengths = archive_bytes(rows)
    longest = max(lengths.values()) if len(lengths) > 1 else ZIP_BYTES_MAX
    bytes_max = read_delivery(place).zip_bytes_max if is_settings else longest
    return ZipTarget(open_campaign(folder, storage), name, bytes_max)

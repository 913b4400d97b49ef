"""One line a file, for those who must answer for it: made by what, from which sources, approved by whom, marked how.

effective rows + masters, and tables of deliveries + their files --> audit_campaign() --> .csv, .tsv, .jsonl, .parquet
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.tombstones import WITHDRAWN
from sdbatch.columns import SOURCE_ROLES
from sdbatch.deliver.index import MADE
from sdbatch.driver.judged import effective_rows
from sdbatch.driver.verify_delivery import DamagedArchive, opened, place_of
from sdbatch.packets import packet_in
from sdbatch.plan.sources import listed
from sdbatch.provenance.source_type import VOCABULARY
from sdbatch.provenance.xmp import read_packet
from sdbatch.report.tables import check_target, write_rows

LICENSE: Final = "x_license"
_TEXT, _INT = pa.string(), pa.int32()
SCHEMA: Final = pa.schema(
    [
        ("file", _TEXT),
        ("place", _TEXT),
        ("sha256", _TEXT),
        ("id", _TEXT),
        ("request_key", _TEXT),
        ("n", _INT),
        ("task", _TEXT),
        ("model", _TEXT),
        ("model_revision", _TEXT),
        ("prompt", _TEXT),
        ("sources", pa.list_(_TEXT)),
        ("source_digests", pa.list_(_TEXT)),
        (LICENSE, _TEXT),
        ("verdict", _TEXT),
        ("approver", _TEXT),
        ("committed_at", pa.timestamp("ms", tz="UTC")),
        ("mark", _TEXT),
        ("signature", _TEXT),
        ("signer", _TEXT),
    ]
)
"""`mark` is the digital source type in the file, `none`, `missing`, `damaged` of a file in a broken archive, or
`withdrawn` of what was taken down; `signature` names its C2PA manifest."""
_READ: Final = (
    *("id", "request_key", "n", "status", "asset", "sha256", "task", "model", "model_revision", "prompt"),
    *(*SOURCE_ROLES, "source_digests", LICENSE, "verdict", "reviewed_by", "committed_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was written.

    Attributes:
        to: The file.
        masters: Lines about masters.
        delivered: Lines about delivered files.
        unmarked: Files of either that say nothing of how they came to be.
        missing: Files that are not there, or cannot be read out of their archive.
        withdrawn: Masters that were taken down; they have a line, and no file.
    """

    to: str
    masters: int
    delivered: int
    unmarked: int
    missing: int
    withdrawn: int = 0


def audit_campaign(campaign: Campaign, to: Path, targets: Sequence[str]) -> AuditReport:
    """Write a line about each master of a campaign, and about each file of deliveries that was made from one.

    Args:
        campaign: The campaign.
        to: The file to write.
        targets: Targets of deliveries.
    """
    check_target(to)
    masters: list[dict[str, Any]] = []
    for part in effective_rows(campaign.store).parts():
        rows = part.select([name for name in part.column_names if name in _READ]).to_pylist()
        masters += [_master_line(campaign, row) for row in rows if row["status"] in {"ok", WITHDRAWN}]
    by_output = {(line["id"], line["request_key"], line["n"]): line for line in masters}
    delivered = [line for target in targets for line in _delivered_lines(target, by_output)]
    lines = [*masters, *delivered]
    write_rows(pa.Table.from_pylist(lines, schema=SCHEMA), to)
    marks = [line["mark"] for line in lines]
    return AuditReport(
        to=str(to),
        masters=len(masters),
        delivered=len(delivered),
        unmarked=marks.count("none"),
        missing=marks.count("missing") + marks.count("damaged"),
        withdrawn=marks.count(WITHDRAWN),
    )


def _master_line(campaign: Campaign, row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        mark = WITHDRAWN if row["status"] == WITHDRAWN else _mark(campaign.store.read(row["asset"]))
    except FileNotFoundError:
        mark = "missing"
    own_license = row.get(LICENSE)
    return {
        **row,
        LICENSE: None if own_license is None else str(own_license),
        "file": row["asset"],
        "place": campaign.store.url,
        "sources": [url for role in SOURCE_ROLES for url in listed(row.get(role))],
        "approver": row.get("reviewed_by"),
        "mark": mark,
    }


def _delivered_lines(url: str, by_output: Mapping[Any, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a line about each delivered file whose master is in the campaign."""
    with opened(*place_of(url)) as target:
        for name, row in sorted(target.rows.items()):
            master = by_output.get((row["id"], row["request_key"], row["n"]))
            if row["status"] != MADE or master is None:
                continue
            try:
                mark = _mark(target.read(row))
            except FileNotFoundError:
                mark = "missing"
            except DamagedArchive:
                mark = "damaged"
            own = {"file": name, "place": url, "sha256": row["sha256"], "mark": mark}
            yield {**master, **own, "signature": row.get("c2pa_label"), "signer": row.get("signer")}


def _mark(data: bytes) -> str:
    said = str(read_packet(packet_in(data)).get("Iptc4xmpExt:DigitalSourceType", ""))
    return said.removeprefix(VOCABULARY) if said.startswith(VOCABULARY) else "none"

"""One line a file, for those who must answer for it: made by what, from which sources, approved by whom, marked how.

effective rows + masters, and tables of deliveries + their files --> audit_campaign() --> .csv, .tsv, .jsonl, .parquet
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.schema import COMMIT
from sdbatch.campaign.tombstones import WITHDRAWN
from sdbatch.columns import SOURCE_ROLES
from sdbatch.deliver.index import MADE
from sdbatch.driver.judged import committed_rows, effective_rows
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
    by_output = {_output(line): line for line in masters}
    delivered = [line for target in targets for line in _delivered_lines(campaign, target, by_output)]
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
    return {**_line(row), "file": row["asset"], "place": campaign.store.url, "mark": mark}


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is the same of a master and of what was delivered of it."""
    own_license = row.get(LICENSE)
    return {
        **row,
        LICENSE: None if own_license is None else str(own_license),
        "sources": [url for role in SOURCE_ROLES for url in listed(row.get(role))],
        "approver": row.get("reviewed_by"),
    }


def _delivered_lines(campaign: Campaign, url: str, by_output: Mapping[Any, Mapping[str, Any]]) -> Iterator[Any]:
    """Yield a line about each delivered file whose master was made in the campaign, wanted still or not."""
    with opened(*place_of(url)) as target:
        rows = {name: row for name, row in sorted(target.rows.items()) if row["status"] == MADE}
        older = _older_lines(campaign, {_output(row) for row in rows.values()} - by_output.keys())
        for name, row in rows.items():
            master = by_output.get(_output(row)) or older.get(_output(row))
            if master is None:
                continue
            try:
                mark = _mark(target.read(row))
            except FileNotFoundError:
                mark = "missing"
            except DamagedArchive:
                mark = "damaged"
            own = {"file": name, "place": url, "sha256": row["sha256"], "mark": mark}
            own_license = {} if _output(row) in by_output else {LICENSE: row.get(LICENSE)}
            yield {**master, **own, **own_license, "signature": row.get("c2pa_label"), "signer": row.get("signer")}


def _older_lines(campaign: Campaign, wanted: Collection[Any]) -> dict[Any, dict[str, Any]]:
    """Return what is known of some outputs that the newest manifest does not want; a commit has no column of theirs."""
    lines: dict[Any, dict[str, Any]] = {}
    columns = [name for name in _READ if name in COMMIT.names]
    for part in committed_rows(campaign.store, columns) if wanted else ():
        for row in part.to_pylist():
            if _output(row) in wanted and row["status"] in {"ok", WITHDRAWN}:
                lines.setdefault(_output(row), _line(row))
    return lines


def _output(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["id"], row["request_key"], row["n"]


def _mark(data: bytes) -> str:
    said = str(read_packet(packet_in(data)).get("Iptc4xmpExt:DigitalSourceType", ""))
    return said.removeprefix(VOCABULARY) if said.startswith(VOCABULARY) else "none"

"""What a delivery is to make: the row of each file by its name, or why it cannot be.

Delivery + effective rows --> wanted_files() --> rows, matches        + rows of the target --> refuse_others()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sdbatch.campaign.campaign import Campaign
from sdbatch.deliver.index import PLANNED, Rows
from sdbatch.deliver.making import file_key, media_type
from sdbatch.deliver.matching import Match, matched, out_of_bounds
from sdbatch.deliver.names import Template, collisions, folded
from sdbatch.deliver.settings import Delivery
from sdbatch.deliver.targets import Target
from sdbatch.driver.delivery.marks import words_of
from sdbatch.driver.delivery.rows import chosen_rows
from sdbatch.driver.judged import committed_rows, effective_rows
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError
from sdbatch.storage import parse_url

LINES_MAX: Final = 20
"""Lines of one message about names or bounds."""
WARN_CROP: Final = 0.15
WARN_ENLARGE: Final = 1.5
"""Crop and enlargement from which on a person is told, where the delivery sets no bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSummary:
    """What one format comes to.

    Attributes:
        format: Its name.
        files: Number of its files.
        crop_max: Largest share of a master that is cropped.
        enlargement_max: Largest factor by which one is enlarged.
    """

    format: str
    files: int
    crop_max: float
    enlargement_max: float


@dataclass(kw_only=True)
class DeliverReport:
    """The result of a delivery, or with a dry run what it would be.

    Attributes:
        delivery: Its name.
        to: Where to.
        state: done, failed (a file was not made), interrupted, or dry-run.
        files: Files that are wanted.
        made: Files made, or to be made.
        current: Files that were there already.
        failed: Why, by name, of files that were not made.
        stale: Files at the target that this delivery made once and does not want any more; those in the place of
            which another one could not be made are in `failed` too.
        removed: Those of them that were removed.
        formats: By format.
        left_out: Outputs that are made and not delivered, by why: `where`, `selection`, or what people decided.
        warnings: What a person should know.
        bytes_made: Bytes of the files made.
        unsigned: Why, by name, of files that were delivered without the signature that was asked for.
    """

    delivery: str
    to: str
    state: str = "done"
    files: int = 0
    made: int = 0
    current: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    formats: list[FormatSummary] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    bytes_made: int = 0
    unsigned: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return {"failed": 3, "interrupted": 130}.get(self.state, 0)


def wanted_files(
    delivery: Delivery,
    campaign: Campaign,
    report: DeliverReport,
    signing: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda _: None,
    selection: Selection | None = None,
) -> tuple[Rows, dict[str, Match]]:
    """Return the row of each file that is wanted, and the match it comes from, by name.

    Args:
        delivery: The delivery.
        campaign: Where its masters are.
        report: Is told of each format, and of what a person should know.
        signing: Returns what of signing decides the bytes of the files of a master; None when they are not signed.
        selection: Which masters; each still feeds the files that it feeds in the whole delivery, and no other.

    Raises:
        UserError: When names collide or cannot be, bounds are passed, or the campaign has no run.
    """
    if _is_within(delivery.to, campaign.store.url):
        raise JobError(f"to: {delivery.to} lies in the campaign {campaign.store.url}; name a place outside of it")
    template = Template(delivery.name)
    parts = effective_rows(campaign.store).parts()
    chosen = chosen_rows(delivery, parts, template, selection or Selection())
    report.left_out, report.warnings = chosen.left_out, [*report.warnings, *chosen.warnings]
    matches, missing = matched(chosen.masters, delivery.own_formats)
    matches = [match for match in matches if match.master.asset not in chosen.unpicked]
    report.warnings += missing
    if lines := out_of_bounds(matches, delivery.crop_max, delivery.enlarge_max):
        raise JobError(_listed(f"{len(lines)} files pass the delivery's bounds", lines))
    _summarise(matches, delivery, report)
    _tell_of_unsaid(matches, delivery, report)
    rows: Rows = {}
    by_name: dict[str, Match] = {}
    named: list[tuple[str, str]] = []
    faults: list[str] = []
    for match in matches:
        try:
            name = template.filled(_fields(match))
        except JobError as error:
            faults.append(f"{match.maker}: {error}")
            continue
        named.append((name, match.maker))
        rows[name] = _row(name, match, delivery, campaign.store.url, signing(match.master.columns))
        by_name[name] = match
    if faults:
        raise JobError(_listed(f"name: {delivery.name!r} gives no name for {len(faults)} files", faults))
    if lines := collisions(named):
        raise JobError(_listed(f"name: {delivery.name!r} gives {len(lines)} files names that others have", lines))
    return rows, by_name


def _is_within(target: str, campaign: str) -> bool:
    place, folder = parse_url(target).url, parse_url(campaign).url
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def _fields(match: Match) -> dict[str, Any]:
    one = match.format
    own = {"format": one.name, "ext": one.type, "width": one.width, "height": one.height}
    return {**match.master.columns, **own}


def _row(
    name: str, match: Match, delivery: Delivery, campaign: str, signing: Mapping[str, Any] | None
) -> dict[str, Any]:
    master, one, placement = match.master, match.format, match.placement
    quality = (delivery.quality.least, delivery.quality.most)
    words = words_of(delivery.metadata, master.columns)
    own = {column: None if value is None else str(value) for column, value in master.own_columns.items()}
    return {
        "name": name,
        "status": PLANNED,
        "delivery": delivery.delivery,
        "campaign": campaign,
        "format": one.name,
        "id": master.id,
        "n": master.n,
        "width": one.width,
        "height": one.height,
        "media_type": media_type(one),
        "file_bytes": None,
        "sha256": None,
        "quality": None,
        "crop": round(placement.crop, 4),
        "enlargement": round(placement.enlargement, 4),
        "error_message": None,
        "request_key": master.columns["request_key"],
        "asset": master.asset,
        "asset_sha256": master.sha256,
        "key": file_key(master.sha256, one, placement, quality, delivery.bar_colour, words, delivery.label, signing),
        "archive": None,
        "ledger": None,
        "source_digests": master.columns.get("source_digests"),
        "verdict": master.columns.get("verdict"),
        "reviewed_by": master.columns.get("reviewed_by"),
        **own,
    }


def _summarise(matches: Sequence[Match], delivery: Delivery, report: DeliverReport) -> None:
    by_format: dict[str, list[Match]] = {}
    for match in matches:
        by_format.setdefault(match.format.name, []).append(match)
    for name, group in by_format.items():
        crop = max(group, key=lambda match: match.placement.crop)
        enlarged = max(group, key=lambda match: match.placement.enlargement)
        report.formats.append(
            FormatSummary(
                format=name,
                files=len(group),
                crop_max=round(crop.placement.crop, 4),
                enlargement_max=round(enlarged.placement.enlargement, 4),
            )
        )
        if delivery.crop_max is None and crop.placement.crop > WARN_CROP:
            report.warnings.append(f"{name}: crops up to {crop.placement.crop:.1%} of a master ({crop.master.id})")
        if delivery.enlarge_max is None and enlarged.placement.enlargement > WARN_ENLARGE:
            factor = enlarged.placement.enlargement
            report.warnings.append(f"{name}: enlarges a master up to {factor:.2f} times ({enlarged.master.id})")


def _tell_of_unsaid(matches: Sequence[Match], delivery: Delivery, report: DeliverReport) -> None:
    """Warn of texts that files lack because a column of theirs is null."""
    lacking: dict[str, dict[str, None]] = {}
    for match in matches:
        for name in delivery.metadata.unsaid(match.master.columns):
            lacking.setdefault(name, {})[match.master.id] = None
    for name, ids in lacking.items():
        shown = next(iter(ids)) + (", ..." if len(ids) > 1 else "")
        report.warnings.append(
            f"metadata.{name}: the files of {len(ids)} rows have none, because a column of it is null: {shown}"
        )


class Owner:
    """Says which rows at a target are a delivery's own: those of its name, of files that its campaign's masters made.

    Deliveries of several campaigns may have one name, that of their file; and a campaign may lie elsewhere today.

    Args:
        delivery: Name of the delivery.
        campaign: Where its masters are.
    """

    def __init__(self, delivery: str, campaign: Campaign) -> None:
        self._delivery, self._campaign = delivery, campaign
        self._made: frozenset[tuple[str, str]] | None = None

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is the delivery's own."""
        if row["delivery"] != self._delivery:
            return False
        if row.get("campaign") in {None, self._campaign.store.url}:
            return True
        if self._made is None:
            parts = committed_rows(self._campaign.store, ("id", "request_key", "n", "status", "asset", "sha256"))
            columns = ((part.column("id").to_pylist(), part.column("sha256").to_pylist()) for part in parts)
            self._made = frozenset(pair for ids, digests in columns for pair in zip(ids, digests, strict=True))
        return (row["id"], row["asset_sha256"]) in self._made


def refuse_others(delivery: Delivery, wanted: Rows, rows: Rows, target: Target, owns: Owner) -> None:
    """Refuse names under which another delivery, or nobody we know, has a file there.

    Raises:
        JobError: With each of them, and both ids.
    """
    others = {folded(name): row for name, row in rows.items() if not owns(row)}
    if others and delivery.is_zip:
        owner = _called(next(iter(others.values())), delivery)
        raise JobError(f"{target.url}: is the archive of {owner}; an archive takes one delivery")
    lines = [
        f"{name}: {row['id']} of {delivery.delivery}, and {other['id']} of {_called(other, delivery)}"
        for name, row in wanted.items()
        if (other := others.get(folded(name)))
    ]
    lines += [f"{name}: is there, and no delivery of sdbatch made it" for name in target.strangers(wanted, rows)]
    if lines:
        remedy = "another `name` or `to`, or the same `delivery`, keeps them apart"
        raise JobError(_listed(f"{target.url}: {len(lines)} names are taken; {remedy}", lines))


def _called(other: Mapping[str, Any], delivery: Delivery) -> str:
    of_campaign = f" of campaign {other['campaign']}" if other["delivery"] == delivery.delivery else ""
    return f"delivery {other['delivery']}{of_campaign}"


def _listed(first: str, lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - LINES_MAX} more"] if len(lines) > LINES_MAX else []
    return "\n".join([first + ":", *lines[:LINES_MAX], *more])

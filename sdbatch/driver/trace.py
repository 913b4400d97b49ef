"""Which output does a file come from? By its digest, by the key inside it, and last by what it shows.

    file --> sha256, key and number, fingerprint --> rows of campaigns and of deliveries --> Candidate x 5 at most

A fingerprint cannot tell siblings apart: what it finds is one of those that are named, or none. A campaign's older
outputs, which no row of its manifest wants any more, went out into the world too; they are looked at last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from sdbatch.campaign.schema import COMMIT
from sdbatch.campaign.tombstones import WITHDRAWN
from sdbatch.columns import SOURCE_ROLES
from sdbatch.deliver.clips import first_gray
from sdbatch.deliver.index import MADE
from sdbatch.deliver.making import PIXELS_MAX
from sdbatch.deliver.stills import small_gray
from sdbatch.driver.judged import committed_rows, effective_rows
from sdbatch.driver.verify_delivery import is_delivery, opened, place_of
from sdbatch.encode.asset import read_embedded
from sdbatch.errors import JobError, RowError
from sdbatch.fetch.containers import HEAD_BYTES, demuxer_of
from sdbatch.fetch.pictures import decode_image
from sdbatch.formats import CLIPS
from sdbatch.packets import packet_in
from sdbatch.provenance.fingerprint import BITS_APART_MAX, bits_apart, fingerprint
from sdbatch.provenance.xmp import read_packet
from sdbatch.storage import open_campaign

CANDIDATES_MAX: Final = 5
SUPERSEDED: Final = "superseded"
"""Status of an output that no row of the newest manifest wants."""
_DOCUMENT: Final = re.compile(r"urn:sdbatch:([0-9a-f]{64}):(\d{1,9})")
_TOLD: Final = (
    *("status", "id", "request_key", "n", "asset", "sha256", "model", "model_revision", "prompt", "recipe"),
    *(*SOURCE_ROLES, "source_digests", "run_id", "committed_at", "verdict", "reviewed_by", "reviewed_at"),
)
_TOLD_OF_DELIVERY: Final = (
    *("name", "id", "request_key", "n", "asset", "sha256", "source_digests", "verdict", "reviewed_by"),
    *("c2pa_label", "signer", "ledger"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One output that a file may come from.

    Attributes:
        place: Campaign or target it is in.
        bits_apart: Bits in which its fingerprint differs; None where digest or key are equal.
        values: What is known of it, by column.
    """

    place: str
    bits_apart: int | None
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReport:
    """What was found of a file.

    Attributes:
        file: The file.
        sha256: Of its bytes.
        by: `sha256`, `key` (that stands in the file), `fingerprint`, or `nothing`.
        candidates: By `fingerprint` it is one of these; the nearest stands first.
    """

    file: str
    sha256: str
    by: str
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What identifies a file."""

    sha256: str
    key: tuple[str, int] | None
    shown: str


def trace_file(path: Path, places: Sequence[str]) -> TraceReport:
    """Look a file up in campaigns and deliveries.

    Raises:
        JobError: When the file cannot be read, or a place holds neither a campaign nor a delivery.
    """
    if not places:
        raise JobError("trace: name a campaign or a target of a delivery to look in")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = _Found(sha256=hashlib.sha256(data).hexdigest(), key=_key_in(data), shown=_shown(data, path))
    by_place = [list(_rows(place, found)) for place in places]
    for by in ("sha256", "key", "fingerprint"):
        hits = [one for rows in by_place for kind, one in rows if kind == by]
        if hits:
            hits.sort(key=lambda one: one.bits_apart or 0)
            return TraceReport(file=str(path), sha256=found.sha256, by=by, candidates=hits[:CANDIDATES_MAX])
    return TraceReport(file=str(path), sha256=found.sha256, by="nothing")


def _key_in(data: bytes) -> tuple[str, int] | None:
    """Return request key and number that a file names: in its XMP, or as masters embed them."""
    match = _DOCUMENT.fullmatch(str(read_packet(packet_in(data)).get("xmpMM:DocumentID", "")))
    if match:
        return match[1], int(match[2])
    demuxer = _demuxer(data)
    suffix = next((suffix for suffix, one in CLIPS.items() if one.demuxer == demuxer), "png")
    try:
        embedded = read_embedded(data, suffix) or {}
    except (OSError, ValueError, RowError):
        return None
    key, n = embedded.get("request_key"), embedded.get("n")
    return (key, n) if isinstance(key, str) and isinstance(n, int) else None


def _demuxer(data: bytes) -> str | None:
    """Return ffmpeg's name of a clip's container; None for a picture, and for what is neither."""
    try:
        return demuxer_of(data[:HEAD_BYTES], "")
    except RowError:
        return None


def _shown(data: bytes, path: Path) -> str:
    """Return the fingerprint of a file; "" when it shows nothing that can be read."""
    demuxer = _demuxer(data)
    try:
        gray_HW = first_gray(path, demuxer) if demuxer else small_gray(decode_image(data, str(path), PIXELS_MAX))
    except (RowError, OSError, ValueError):
        return ""
    return fingerprint(gray_HW)


def _rows(place: str, found: _Found) -> Iterator[tuple[str, Candidate]]:
    url, storage = place_of(place)
    if is_delivery(url, storage):
        with opened(url, storage) as target:
            rows = [row for row in target.rows.values() if row["status"] == MADE]
        yield from _matches(place, rows, found, _TOLD_OF_DELIVERY)
        return
    store = open_campaign(url, storage)
    known: set[tuple[Any, ...]] = set()
    is_certain = False
    for part in effective_rows(store).parts(thumbnails=bool(found.shown)):
        for kind, one in _matches(place, _ok(part), found, _told(part)):
            known.add(_output(one.values))
            is_certain |= kind != "fingerprint"
            yield kind, one
    if is_certain:
        return
    columns = [name for name in (*_TOLD, *(("thumbnail",) if found.shown else ())) if name in COMMIT.names]
    for part in committed_rows(store, columns):
        for kind, one in _matches(place, _ok(part), found, _TOLD):
            if _output(one.values) not in known:
                yield kind, replace(one, values={"status": SUPERSEDED, **one.values})


def _told(part: pa.Table) -> tuple[str, ...]:
    return (*_TOLD, *(name for name in part.column_names if name.startswith("x_")))


def _output(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(map(values.get, ("id", "request_key", "n")))


def _ok(part: pa.Table) -> list[dict[str, Any]]:
    """Return the outputs that are made, and those that were taken down, whose `status` says so."""
    names = [name for name in part.column_names if name in {*_told(part), "thumbnail"}]
    rows = [row for row in part.select(names).to_pylist() if row["status"] in {"ok", WITHDRAWN}]
    return [_with_fingerprint({**row, "status": None} if row["status"] == "ok" else row) for row in rows]


def _with_fingerprint(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the fingerprint of its thumbnail, which shows what its master does."""
    if small := row.pop("thumbnail", None):
        row["fingerprint"] = fingerprint(small_gray(decode_image(small, row["asset"], PIXELS_MAX)))
    return row


def _matches(
    place: str, rows: Sequence[Mapping[str, Any]], found: _Found, told: Sequence[str]
) -> Iterator[tuple[str, Candidate]]:
    def candidate(row: Mapping[str, Any], apart: int | None) -> Candidate:
        values = {name: row[name] for name in told if row.get(name) is not None}
        return Candidate(place=place, bits_apart=apart, values=values)

    for row in rows:
        if found.sha256 in {row.get("sha256"), row.get("content_sha256")}:
            yield "sha256", candidate(row, None)
        elif found.key is not None and (row.get("request_key"), row.get("n")) == found.key:
            yield "key", candidate(row, None)
    known = [row for row in rows if row.get("fingerprint")]
    if not found.shown or not known:
        return
    apart = bits_apart(found.shown, np.array([int(row["fingerprint"], 16) for row in known], np.uint64))
    for nearest in np.argsort(apart, kind="stable")[:CANDIDATES_MAX]:
        if apart[nearest] <= BITS_APART_MAX:
            yield "fingerprint", candidate(known[nearest], int(apart[nearest]))

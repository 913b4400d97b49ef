"""Outputs of a campaign that other rows may have as sources: which of them stand, and where their files are.

(id, request key, n) x N + History --> standing_outputs() --> file, digest and kind of each that stands
ids --> newest_requests() --> the key that the newest manifest with that id gave it
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign.digests import DigestTable, group_starts, id_digests, request_digests
from sdbatch.campaign.effective import ASKED, with_own_assets
from sdbatch.campaign.files import each_of, request_parts, run_ids
from sdbatch.campaign.history import History
from sdbatch.campaign.read import read_commit, read_requests
from sdbatch.storage import Store

_READ = ("id", "request_key", "n", "status", "asset", "sha256", "media_type", "width", "height")


class OutputName(NamedTuple):
    """One output.

    Attributes:
        id: Id of its request.
        request_key: The request's key.
        n: Its number.
    """

    id: str
    request_key: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingOutput:
    """The file of an output.

    Attributes:
        asset: Its path in the campaign.
        sha256: Its digest, as committed.
        media_type: Such as `image/png`.
        size: Width and height in pixels; None where they were not recorded.
    """

    asset: str
    sha256: str
    media_type: str
    size: tuple[int, int] | None = None


def standing_outputs(
    store: Store, history: History, wanted: Iterable[OutputName], void: Collection[OutputName] = ()
) -> dict[OutputName, StandingOutput]:
    """Return the files of those outputs that stand: that are committed, and that nobody took back.

    Args:
        store: The campaign.
        history: What is done.
        wanted: The outputs.
        void: Outputs that are taken back now.
    """
    asked = sorted(set(wanted).difference(void))
    ids, keys = (pa.array([one[place] for one in asked], pa.string()) for place in (0, 1))
    starts = group_starts(history.requests)
    ends = np.append(starts[1:], len(history))
    places = DigestTable(history.requests.take(starts)).positions(request_digests(id_digests(ids), keys)).tolist()
    by_commit: dict[int, list[OutputName]] = {}
    for one, place in zip(asked, places, strict=True):
        of_request = slice(starts[place], ends[place]) if place >= 0 else slice(0)
        made = history.is_ok[of_request] & (history.numbers[of_request] == one.n)
        commits = history.commit[of_request][made]
        if len(commits):
            by_commit.setdefault(int(commits[0]), []).append(one)  # of several the lowest (run, unit) counts
    found: dict[OutputName, StandingOutput] = {}
    tables = each_of(lambda commit: read_commit(store, history.commits[commit], _READ), by_commit)
    for ones, table in zip(by_commit.values(), tables, strict=True):
        found |= _files(with_own_assets(table), set(ones))
    return found


def _files(commit: pa.Table, wanted: set[OutputName]) -> dict[OutputName, StandingOutput]:
    ids = pa.array(sorted({one.id for one in wanted}), pa.string())
    rows = commit.filter(pc.and_(pc.is_in(commit.column("id"), ids), pc.equal(commit.column("status"), "ok")))
    return {
        name: StandingOutput(
            asset=row["asset"],
            sha256=row["sha256"],
            media_type=row["media_type"] or "",
            size=(row["width"], row["height"]) if row["width"] and row["height"] else None,
        )
        for row in rows.to_pylist()
        if (name := OutputName(row["id"], row["request_key"], row["n"])) in wanted and row["asset"] and row["sha256"]
    }


def newest_requests(store: Store, ids: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Return request key and number of outputs that the newest manifest, or grid, with an id gave it."""
    found: dict[str, tuple[str, int | None]] = {}
    missing = set(ids)
    for run in reversed(run_ids(store)) if missing else ():
        for path in request_parts(store, run, with_grid=True):
            part = read_requests(store, path, ASKED)
            part = part.filter(pc.is_in(part.column("id"), pa.array(sorted(missing), pa.string())))
            found |= {row["id"]: (row["request_key"], row["num_outputs"]) for row in part.to_pylist()}
        missing.difference_update(found)
        if not missing:
            break
    return found

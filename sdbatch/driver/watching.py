"""What a person looks at between and during runs: the runs of a campaign, what failed, and where the newest run stands.

    Campaign --> runs_of(), failures_of(), watched()

All of it is read from the store, and none of it needs Ray or the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import winners
from sdbatch.campaign.files import each_of, request_parts, run_ids
from sdbatch.campaign.history import read_outcomes
from sdbatch.campaign.read import read_commit, read_requests, read_status
from sdbatch.campaign.schema import METADATA
from sdbatch.driver.one_run.select import check_failure_class
from sdbatch.driver.picking import Selection, picked_rows
from sdbatch.errors import JobError
from sdbatch.storage import Store

FAILURE_COLUMNS: Final = (
    *("id", "n", "status", "error_type", "error_message", "error_retryable"),
    *("attempts", "task", "model", "run_id", "worker"),
)
_KEYED: Final = ("request_key", *FAILURE_COLUMNS)
_ASKED: Final = pa.schema([("id", pa.string()), ("request_key", pa.string())])
LOOK_EVERY_S: Final = 2.0
"""Wall seconds between two looks at a run: it writes its status as often."""
_LOOKS_AT_ONE_RUN: Final = 15
"""After so many looks a watch asks whether there is a newer run, or the driver is gone; the others read one file."""


def runs_of(store: Store, num_runs: int | None = None) -> list[dict[str, Any]]:
    """Return what became of the newest runs, or of all, the newest first.

    Each has `run_id`, `state`, `started_at`, `wall_s`, `counts`, `campaign`, `exit_code` and `message`, None where the
    run did not write it. A run that was killed has the state `killed`, the newest as long as it may live `running`.

    Raises:
        JobError: When the campaign has no run.
    """
    campaign = Campaign(store)
    newest = campaign.status()
    runs = list(islice(reversed(run_ids(store)), num_runs))
    found = list(each_of(lambda run: _run(campaign, run), runs))
    described = [one for one in found if one is not None]
    for one in described:
        if one["state"] == "running":
            is_newest = one["run_id"] == newest["run_id"]
            one["state"] = newest["state"] if is_newest and newest["state"] != "dead" else "killed"
    return described


def _run(campaign: Campaign, run: str) -> dict[str, Any] | None:
    """Return a run as its record has it, else as its status does; None where it never began."""
    record = campaign.record(run)
    if record is None:
        try:
            record = read_status(campaign.store, run)
        except FileNotFoundError:
            return None
    names = ("state", "started_at", "wall_s", "counts", "campaign", "exit_code", "message")
    return {"run_id": run, **{name: record.get(name) for name in names}}


def failures_of(store: Store, selection: Selection | None = None, error_type: str | None = None) -> pa.Table:
    """Return the requests and outputs of the newest run's manifest that are not made because they failed.

    Only the commits that tell of them are read.

    Args:
        store: The campaign.
        selection: Which of them, by `FAILURE_COLUMNS`; all by default.
        error_type: Only this class.

    Raises:
        JobError: When the campaign has no run, or there is no such class.
    """
    campaign = Campaign(store)
    run = campaign.newest_run()
    rows = winners(read_outcomes(store))
    rows = rows.filter(pc.not_equal(rows.column("status"), "ok"))
    if error_type is not None:
        rows = rows.filter(pc.equal(rows.column("error_type"), error_type))
        if not rows.num_rows:  # a class that another version recorded is found, though it is none of this one's
            check_failure_class("--class", error_type)
    failed = set(_places(rows))
    asked = failed and _asked(store, run, set(rows.column("id").to_pylist()))
    wanted = {place for place in failed if place[:2] in asked} if asked else set()
    commits = {
        commit
        for commit, place in zip(rows.column("commit").to_pylist(), _places(rows), strict=True)
        if place in wanted
    }
    parts = [_failed_in(store, commit, wanted) for commit in sorted(commits)]
    schema = pa.schema([METADATA.field(name) for name in FAILURE_COLUMNS])
    table = pa.concat_tables([schema.empty_table(), *parts]).sort_by([("id", "ascending"), ("n", "ascending")])
    if selection is None or selection.is_of_all:
        return table
    return pa.concat_tables([schema.empty_table(), *picked_rows([table], selection, "the list of failures")])


def _places(rows: pa.Table) -> list[tuple[str, str, int | None]]:
    return list(zip(*(rows.column(name).to_pylist() for name in ("id", "request_key", "n")), strict=True))


def _asked(store: Store, run: str, ids: set[str]) -> set[tuple[str, str]]:
    """Return id and key of those of some requests that a run's manifest has."""
    names = pa.array(sorted(ids), pa.string())
    found: set[tuple[str, str]] = set()
    for path in request_parts(store, run):
        part = read_requests(store, path, _ASKED)
        part = part.filter(pc.is_in(part.column("id"), names))
        found.update(zip(part.column("id").to_pylist(), part.column("request_key").to_pylist(), strict=True))
    return found


def _failed_in(store: Store, commit: str, wanted: set[tuple[str, str, int | None]]) -> pa.Table:
    rows = read_commit(store, commit, _KEYED)
    is_wanted = [
        place in wanted and status != "ok"
        for place, status in zip(_places(rows), rows.column("status").to_pylist(), strict=True)
    ]
    return rows.filter(pa.array(is_wanted, pa.bool_())).select(list(FAILURE_COLUMNS))


def watched(store: Store, sleep: Callable[[float], None] = time.sleep) -> Iterator[dict[str, Any]]:
    """Yield the newest run's status until it has ended; a look is one read of a small file, mostly.

    Raises:
        JobError: When the campaign has no run.
    """
    campaign = Campaign(store)
    latest = campaign.status()
    looks = 0
    yield latest
    while latest["state"] == "running":
        sleep(LOOK_EVERY_S)
        looks += 1
        if looks % _LOOKS_AT_ONE_RUN == 0:
            latest = campaign.status()
        else:
            try:
                latest = read_status(store, latest["run_id"])
            except FileNotFoundError as error:
                raise JobError(f"{store.url}: the status of run {latest['run_id']} is gone") from error
        yield latest

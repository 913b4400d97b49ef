"""A campaign over a store: what is asked of it, and what each question costs.

    Campaign --> status | history, done | effective rows | outcomes | verify | gc

Every question looks anew: a campaign changes while a run goes on. `status` is a listing of folders and one object; what
a resume needs is the newest snapshot and the runs after it, so that neither grows with the number of past runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign.done import Done
from sdbatch.campaign.effective import EffectiveRows, winners
from sdbatch.campaign.files import newest_run_with_manifest, request_parts, run_ids
from sdbatch.campaign.gc import OLDER_THAN_S, GcReport, collect_garbage
from sdbatch.campaign.history import History, read_history, read_outcomes
from sdbatch.campaign.lease import is_gone
from sdbatch.campaign.read import no_run, read_commit, read_record, read_requests, read_status
from sdbatch.campaign.superseded import Keeper
from sdbatch.campaign.verify import VerifyReport, verify_campaign
from sdbatch.errors import UserError
from sdbatch.storage import Store
from sdbatch.verdicts import NO_VERDICTS, Verdicts

RECORDS_MAX = 4
"""Newest runs whose records are looked into for what they measured."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign folder.

    Attributes:
        store: The folder.
    """

    store: Store

    def newest_run(self) -> str:
        """Return the newest run that wrote down its manifest.

        Raises:
            JobError: When the campaign has none.
        """
        run = newest_run_with_manifest(self.store)
        if run is None:
            raise no_run(self.store)
        return run

    def status(self) -> dict[str, Any]:
        """Return the newest run's `status.json`; its state is `dead` when the driver ran here and its process is gone.

        Raises:
            JobError: When the campaign has no run.
            UserError: When the status is not one that sdbatch wrote.
        """
        for run in reversed(run_ids(self.store)):
            if status := self.status_of(run):  # none: a collection of garbage, or a run that has not begun
                return status
        raise no_run(self.store)

    def status_of(self, run: str) -> dict[str, Any] | None:
        """Return a run's `status.json`, as `status` does; None when it has none."""
        try:
            status = read_status(self.store, run)
        except FileNotFoundError:
            return None
        if status["state"] == "running" and is_gone(self.store):
            status["state"] = "dead"
        return status

    def standing(self) -> dict[str, int]:
        """Return where the rows of the newest manifest stand, as its run says; empty where it does not say."""
        run = newest_run_with_manifest(self.store)
        status = self.status_of(run) if run else None
        return dict(status.get("campaign") or {}) if status else {}

    def record(self, run: str) -> dict[str, Any] | None:
        """Return a run's `run.json`; None when it has not ended, or was killed."""
        try:
            return read_record(self.store, run)
        except FileNotFoundError:
            return None

    def records(self, num_runs: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the `run.json` of those of the newest runs, or of all, that ended; the newest first."""
        yield from filter(None, map(self.record, islice(reversed(run_ids(self.store)), num_runs)))

    def history(self, *, follower: str | None = None, unreadable: list[str] | None = None) -> History:
        """Return every outcome that counts; see `read_history`."""
        return read_history(self.store, follower=follower, unreadable=unreadable)

    def done(self, verdicts: Verdicts = NO_VERDICTS, *, follower: str | None = None) -> Done:
        """Return what is done and wanted, for a plan; see `read_history`."""
        return Done(self.history(follower=follower), self.store, verdicts)

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Return those of some ids for which nothing was ever committed."""
        asked = list(ids)
        known = self.history(unreadable=[]).knows(pa.array(asked, pa.string()))
        return [request_id for request_id, is_known in zip(asked, known.tolist(), strict=True) if not is_known]

    def effective(self, verdicts: Verdicts, run: str | None = None, history: History | None = None) -> EffectiveRows:
        """Return the effective rows of a run's manifest, by default the newest's, as of now or of a history."""
        return EffectiveRows(self.store, run or self.newest_run(), history or self.history(), verdicts)

    def outcomes_of(self, request_id: str) -> pa.Table:
        """Return the outcomes of one id that count (columns as in `INDEX`), under all its keys."""
        return winners(read_outcomes(self.store, request_id))

    def assets_of(self, outputs: Collection[tuple[str, int | None]]) -> dict[tuple[str, str, int | None], str]:
        """Return the assets of some outputs, given as (request key, n), under every id that has them.

        Returns:
            Path of the asset by (id, request key, n); "" where its commit is torn.
        """
        rows = winners(read_outcomes(self.store))
        keys = pa.array(sorted({key for key, _ in outputs}), pa.string())
        rows = rows.filter(pc.and_(pc.is_in(rows.column("request_key"), keys), pc.equal(rows.column("status"), "ok")))
        places = zip(*(rows.column(name).to_pylist() for name in ("id", "request_key", "n")), strict=True)
        assets = {(request_id, key, n): "" for request_id, key, n in places if (key, n) in outputs}
        for commit in pc.unique(rows.column("commit")).to_pylist():
            with suppress(UserError):  # a torn commit names no asset any more
                for row in read_commit(self.store, commit, ["id", "request_key", "n", "asset"]).to_pylist():
                    place = (row["id"], row["request_key"], row["n"])
                    if place in assets and row["asset"]:
                        assets[place] = str(row["asset"])
        return assets

    def newest_key(self, request_id: str) -> str | None:
        """Return the key that the newest run's manifest gave a request; None when it does not have it."""
        wanted = pa.schema([("id", pa.string()), ("request_key", pa.string())])
        run = newest_run_with_manifest(self.store)
        for path in request_parts(self.store, run) if run else ():
            part = read_requests(self.store, path, wanted)
            keys = part.filter(pc.equal(part.column("id"), request_id)).column("request_key").to_pylist()
            if keys:
                return str(keys[0])
        return None

    def verify(
        self,
        sample: float | None = None,
        seed: int | None = None,
        verdicts_of: Callable[[Sequence[str]], Verdicts] = lambda _: NO_VERDICTS,
    ) -> VerifyReport:
        """Compare what the campaign says with what it holds; see `verify_campaign`."""
        return verify_campaign(self.store, sample, seed, verdicts_of)

    def collect_garbage(
        self,
        *,
        older_than_s: float = OLDER_THAN_S,
        delete: bool = False,
        keeps: Callable[[], Mapping[str, Keeper]] | None = None,
    ) -> GcReport:
        """Find, and when told to remove, what nothing needs; see `sdbatch.campaign.gc`."""
        return collect_garbage(self.store, older_than_s=older_than_s, delete=delete, keeps=keeps)

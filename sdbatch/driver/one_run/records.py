"""Records of a run: `status.json` while it goes on, `run.json` at its end, the index of its commits."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sdbatch.campaign import layout
from sdbatch.campaign.history import History, read_history
from sdbatch.campaign.index import RunIndex
from sdbatch.campaign.snapshot import is_due, write_snapshot
from sdbatch.dispatch.likeness import Standard
from sdbatch.driver.one_run.made_with import read_made_with
from sdbatch.driver.one_run.public_job import public_job
from sdbatch.driver.one_run.tally import RunTally
from sdbatch.driver.rows.scan import Scanned
from sdbatch.errors import SdbatchError, StoreUnavailable
from sdbatch.job import Job
from sdbatch.points import reached
from sdbatch.report.progress import Snapshot, rate_and_eta
from sdbatch.storage import Store
from sdbatch.types import FORMAT_VERSION, Receipt, RowOutcome, Unit

LOG = logging.getLogger("sdbatch.driver")
STATUS_EVERY_S = 2.0
_RECORDED_PACKAGES = (
    "sdbatch",
    "ray",
    "torch",
    "diffusers",
    "transformers",
    "pyarrow",
    "pillow",
    "fsspec",
    "s3fs",
)

State = Literal["done", "failed", "interrupted", "cancelled", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The end of a run.

    Attributes:
        run_id: Its id.
        output: The campaign.
        state: `done`, `failed` (some rows), `stopped` (a bound or a fault), `interrupted` (signal) or `cancelled`.
        exit_code: 0 done, 1 a fault, 3 failed rows, 6 a budget is reached, 130 interrupted or cancelled.
        counts: The run's counts; see `Counts`.
        failures: Failed rows of the manifest by class.
        wall_s: From start to end.
        message: Why it stopped; None when it did not.
        warnings: What a person should know: rows that leave, warnings of the manifest (equal ones grouped), prompts
            that were cut, in what its workers differed from each other or from those of earlier runs.
        rows_leaving: Rows of the campaign that its manifest does not have; their assets stay.
        gpu_hours: Time of its workers, waiting included, times their GPUs.
        cost: Money of that; None without prices.
        currency: Of the money.
        forecast: Forecast, actual and error of each model and of the run; see `RunMeasure.record`.
        outputs_waiting: Rejected and blocked outputs that wait for `--reroll`.
        outputs_given_up: Outputs that are wanted and have no number left below the bound of `limits.rerolls`.
        campaign: Where the manifest's rows stand, also those that the run left out: `rows`, `made`, `failed`, `open`.
        first_failures: The first rows that failed in this run, each with `id`, `n`, `error_type`, `error_message`.
    """

    run_id: str
    output: str
    state: State
    exit_code: int
    counts: dict[str, int]
    failures: dict[str, int]
    wall_s: float
    message: str | None = None
    warnings: tuple[str, ...] = ()
    rows_leaving: int = 0
    gpu_hours: float = 0.0
    cost: float | None = None
    currency: str | None = None
    forecast: Mapping[str, Any] = field(default_factory=dict)
    outputs_waiting: int = 0
    outputs_given_up: int = 0
    campaign: Mapping[str, int] = field(default_factory=dict)
    first_failures: tuple[Mapping[str, Any], ...] = ()


class RunRecords:
    """Writes the records of one run into its campaign.

    Args:
        store: The campaign.
        run_id: The run.
        job: Its job.
        scanned: Its manifest and models.
        started_at: When it began.
        key_version: Version of the campaign's request keys once this run has ended.
    """

    def __init__(
        self, store: Store, run_id: str, job: Job, scanned: Scanned, started_at: datetime, key_version: int
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._job = job
        self._scanned = scanned
        self._started_at = started_at.isoformat(timespec="seconds")
        self._key_version = key_version
        self._status_written_s = 0.0
        self._index = RunIndex(store, run_id)
        self._made_with = read_made_with(store)
        self._prices = job.prices.model_dump() if job.prices else None

    @property
    def standards(self) -> dict[str, Standard]:
        """Versions and device that each model's outputs were made with, in earlier runs and in this one so far."""
        return self._made_with.standards(self._job.determinism)

    def note_receipt(self, unit: Unit, receipt: Receipt, facts: Mapping[str, str]) -> None:
        """Note what the outputs of a unit were made with.

        Args:
            unit: The unit.
            receipt: What its worker did.
            facts: What the worker says of itself.
        """
        if receipt.rows_generated:
            self._made_with.add(self._job.determinism, unit.model, self._run_id, facts)

    @property
    def is_status_due(self) -> bool:
        """Whether `status.json` is older than `STATUS_EVERY_S`, or lacks what outputs are made with."""
        return self._made_with.is_new or time.monotonic() - self._status_written_s >= STATUS_EVERY_S

    def write_status(
        self,
        state: str,
        tally: RunTally,
        snapshot: Snapshot,
        spending: Mapping[str, Any],
        *,
        waits_for: Sequence[str] = (),
    ) -> None:
        """Replace the run's `status.json`.

        Args:
            state: What the run does, or how it ended.
            tally: Its counts.
            snapshot: Its progress.
            spending: What `RunBudget.record` returns.
            waits_for: What it waits for while it has no worker.
        """
        self._status_written_s = time.monotonic()
        rate, eta_s = rate_and_eta(snapshot)
        status = {
            "format_version": FORMAT_VERSION,
            "key_version": self._key_version,
            "run_id": self._run_id,
            "state": state,
            "started_at": self._started_at,
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": self._scanned.num_rows,
            "ids_digest": self._scanned.ids_digest,
            "assets_pending": snapshot.outputs_pending - snapshot.outputs_ended,
            "assets_ended": snapshot.outputs_ended,
            "rate_per_s": rate,
            "eta_s": eta_s if state == "running" else None,
            "workers": snapshot.workers,
            "units_in_flight": snapshot.in_flight,
            "counts": tally.counts.as_dict(),
            "failures": tally.failures,
            "campaign": tally.campaign(self._scanned.num_rows),
            "waits_for": list(waits_for),
            "made_with": self._made_with.by_determinism,
            "prices": self._prices,
            "spending": spending,
        }
        reached("writing-status")
        self._store.put(layout.status_json(self._run_id), _json(status), "application/json")
        self._made_with.is_new = False

    def write_run_json(
        self,
        result: RunResult,
        workers: Mapping[str, Mapping[str, str]],
        rates: Mapping[str, float],
        *,
        spending: Mapping[str, Any],
        paces: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write the run's `run.json`.

        Args:
            result: How it ended.
            workers: Facts about each worker's machine.
            rates: Measured TFLOP a second of one worker, by model.
            spending: What `RunBudget.record` returns.
            paces: What was measured; see `Paces.as_list`.
        """
        record = {
            "format_version": FORMAT_VERSION,
            "key_version": self._key_version,
            "run_id": self._run_id,
            "state": result.state,
            "exit_code": result.exit_code,
            "message": result.message,
            "warnings": result.warnings,
            "rows_leaving": result.rows_leaving,
            "outputs_waiting": result.outputs_waiting,
            "outputs_given_up": result.outputs_given_up,
            "started_at": self._started_at,
            "wall_s": round(result.wall_s, 3),
            "job": public_job(self._job),
            "models": {
                name: {"path": model.path, "revision": model.revision, "family": model.family.title}
                for name, model in self._scanned.models.items()
            },
            "manifest": {
                "rows": self._scanned.num_rows,
                "shards": self._scanned.num_shards,
                **({"tables": dict(self._scanned.tables)} if self._scanned.tables else {}),
            },
            "versions": _versions(),
            "workers": workers,
            "made_with": self._made_with.by_determinism,
            "rate_tflop_per_s": rates,
            "prices": self._prices,
            "spending": spending,
            "forecast": result.forecast,
            "paces": paces,
            "counts": result.counts,
            "failures": result.failures,
            "campaign": result.campaign,
        }
        reached("before-run-json")
        self._store.put_new(layout.run_json(self._run_id), _json(record), "application/json")

    def index_commit(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        """Add a commit to the index, which is written now and then."""
        with self.tolerated("index"):
            self._index.add(unit, outcomes)

    def index_rest(self) -> None:
        """Write an index over the commits that none covers yet, so that the next run reads it instead of them."""
        with self.tolerated("index"):
            self._index.write_rest()

    def write_snapshot(self, history: History | None) -> None:
        """Write what is done, when it is time; without it the next run reads more files, and no row is lost.

        Args:
            history: What the run's metadata were made from; None for a run that ends without.
        """
        unreadable: list[str] = []
        try:
            told = history or read_history(self._store, unreadable=unreadable)
            if is_due(told) and not unreadable:
                write_snapshot(self._store, self._run_id, told)
        except SdbatchError as error:
            LOG.warning("not written", extra={"run_id": self._run_id, "what": "snapshot", "error": str(error)})

    @contextmanager
    def tolerated(self, what: str, *, is_last: bool | None = None) -> Iterator[None]:
        """Let a write that can wait fail: the lease decides how long a run lives without its store.

        Args:
            what: What is written.
            is_last: Whether the run stops anyway, so that any refusal is let pass; None for a write that can wait.
        """
        try:
            yield
        except SdbatchError as error:
            can_wait = is_last is None and isinstance(error, StoreUnavailable)
            if not (is_last or can_wait):
                raise
            LOG.warning("not written", extra={"run_id": self._run_id, "what": what, "error": str(error)})


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages: those of an extra that is not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n").encode()

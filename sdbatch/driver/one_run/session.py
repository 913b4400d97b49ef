"""One run on a campaign it holds: the dispatcher, what it is wired to, and what follows from its events.

    pending requests --> Dispatcher --> receipts --> RunTally, RunRecords

Kill it at any moment: what is in flight lives here, in memory, and all else is in the campaign.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sdbatch.campaign import layout
from sdbatch.campaign.done import Done
from sdbatch.campaign.history import History
from sdbatch.campaign.lease import Lease
from sdbatch.campaign.leaving import Leaving
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.write import failed_unit_rows, outcomes_of, put_commit, receipt_of
from sdbatch.collector import seldom_collected
from sdbatch.dispatch.ahead import RayAhead
from sdbatch.dispatch.dispatcher import Dispatcher, Plan
from sdbatch.dispatch.executor import Shape, SlotExecutor
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.waits import Wait
from sdbatch.driver.gallery import LiveGallery
from sdbatch.driver.one_run.records import RunRecords, RunResult, State
from sdbatch.driver.one_run.rerolls import review_lines
from sdbatch.driver.one_run.select import ClassifiedRows, classify, columns_for, requests_of
from sdbatch.driver.one_run.tally import RunTally
from sdbatch.driver.one_run.waiting import WaitingLines
from sdbatch.driver.picking import Selection
from sdbatch.driver.predicted.run_costs import RunCosts
from sdbatch.driver.rows.scan import COUNTED, ResolvedManifest
from sdbatch.driver.rows.shared_keys import Sharing
from sdbatch.driver.signals import Interrupt
from sdbatch.errors import ROW_FAILURES, ClusterRefused, SdbatchError, StoreUnavailable, grouped
from sdbatch.job import Job
from sdbatch.logs import log_format
from sdbatch.outcomes import Outcome
from sdbatch.plan.window import Window, bisected
from sdbatch.report.progress import Progress, Snapshot, rate_and_eta
from sdbatch.storage import Store, parse_url
from sdbatch.types import Observation, Receipt, RowOutcome, Unit, WorkerSpec

LOG = logging.getLogger("sdbatch.driver")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The kind of workers that a run uses.

    Attributes:
        in_process: One worker in this process instead of a Ray cluster.
        path: Dotted path of the worker's class.
        allow_open: Whether a Ray cluster may do without a token.
        ahead: Has perhaps started Ray on this machine already.
    """

    in_process: bool
    path: str
    allow_open: bool
    ahead: RayAhead


def shapes_of(job: Job) -> dict[str, Shape]:
    """Return the shape of the slot of each model's workers."""
    return {
        name: Shape(num_gpus=model.num_gpus, num_cpus=model.num_cpus, memory_gib=model.memory_gib)
        for name, model in job.models.items()
    }


def num_cpus_of(job: Job) -> int | None:
    """Return the CPUs that a job's workers ask for on one machine; None where it says no number of workers."""
    count = job.workers.count
    return sum(shape.num_cpus for shape in set(shapes_of(job).values())) * count if isinstance(count, int) else None


class Session:
    """One run, from its lease to its result.

    Args:
        job: The job.
        manifest: Its rows, resolved.
        store: The campaign.
        lease: Held while the session lives.
        selection: Which rows.
        interrupt: Counts the signals that came.
        progress: Shown while it runs.
        workers: What makes the units.
        key_version: Recorded with the run. See `settle_key_version`.
        leaving: Rows of the campaign that its manifest does not have.
        is_aside: Whether its rows stand beside the campaign's manifest, as a grid's do.
    """

    def __init__(
        self,
        job: Job,
        manifest: ResolvedManifest,
        store: Store,
        lease: Lease,
        *,
        selection: Selection,
        interrupt: Interrupt,
        progress: Progress,
        workers: Workers,
        key_version: int,
        leaving: Leaving,
        is_aside: bool = False,
    ) -> None:
        self._leaving = leaving
        self._job = job
        self._manifest = manifest
        self._store = store
        self._lease = lease
        self._selection = selection
        self._interrupt = interrupt
        self._progress = progress
        self._workers = workers
        started_at = datetime.now(UTC)
        self._started_s = time.monotonic()
        self.run_id = layout.run_id(lease.holder.epoch, started_at.strftime("%Y%m%dT%H%M%SZ"))
        self._tally = RunTally(is_aside=is_aside)
        self._records = RunRecords(store, self.run_id, job, manifest.scanned, started_at, key_version)
        # What is made beside the manifest is no part of the gallery.
        self._gallery = None if is_aside else LiveGallery(store, self.run_id, lease.confirm)
        self._costs = RunCosts(job, manifest.scanned.models, store, self.run_id)
        self._working_since_s: float | None = None
        self._waiting = WaitingLines(self._started_s)
        self._executor: SlotExecutor | None = None
        self._fleet: Fleet | None = None
        self._starting: Future[None] | None = None
        self._dispatcher: Dispatcher | None = None
        self._stop_reason: str | None = None
        self._is_over_budget = False

    def start_ahead(self) -> None:
        """Start the workers beside the counting of what they will make, where Ray was started ahead.

        Those that turn out to be too many are ended by the dispatcher. Where a budget bounds the run, or workers of
        several shapes share the machine, what there is to make decides which are started. A Ray that does not start is
        told of later, when workers are needed.
        """
        is_alike = len(set(shapes_of(self._job).values())) == 1
        if self._workers.ahead.is_begun and is_alike and not self._job.limits.is_budgeted:
            self._starting = self._workers.ahead.then(self._start_ahead)

    def _start_ahead(self) -> None:
        with suppress(SdbatchError):
            executor = self._start_executor()
            self._fleet = Fleet(executor, self._shapes(executor))
            self._costs.follow(self._fleet)
            (shape,) = self._fleet.models
            fitting = executor.capacity(shape)
            for _ in range(min(self._worker_count() or fitting, fitting, self._job.workers.max)):
                self._fleet.start_ahead(shape)

    def count_pending(self, done: Done) -> None:
        """Count the outputs to make and the rows that stay as they are."""
        self._sharing = Sharing(self._manifest.shared_keys(), done.origins)
        self._tally.count_pending(self._classified(done, COUNTED), self._sharing)

    def make(self, done: Done) -> tuple[State, str | None]:
        """Run the dispatcher when there is anything to make; return how it ended, and why when that was early."""
        try:
            if not self._tally.outputs_pending:
                return self._ended("done"), None
            return self._dispatched(done)
        finally:
            self.end_workers()
            self._records.index_rest()

    def end_workers(self) -> None:
        """End whatever runs the workers, also those that a thread still starts."""
        self._workers.ahead.settle()
        executor, self._executor = self._executor, None
        if executor is not None:
            self._where_it_runs(executor.close)
        self._costs.end_slots()

    def _where_it_runs(self, call: Callable[[], _T]) -> _T:
        """Make a call that starts or ends workers: of Ray on its own thread, where no signal interrupts it halfway."""
        return call() if self._workers.in_process else self._workers.ahead.then(call).result()

    def _dispatched(self, done: Done) -> tuple[State, str | None]:
        try:
            # A model in this process is let go as it always is; of what is handed out hardly anything is in a cycle.
            with self._progress, nullcontext() if self._workers.in_process else seldom_collected():
                self._progress.say("starting workers")
                if self._starting is not None:
                    self._starting.result()
                executor = self._executor or self._where_it_runs(self._start_executor)
                self._dispatcher = self._build_dispatcher(executor, done)
                self._costs.follow(self._dispatcher.fleet)
                self._lease.note = self._costs.beat_note
                self._dispatcher.run()
        except KeyboardInterrupt:
            return "interrupted", "stopped at once by a second signal"
        except ClusterRefused:
            raise  # nothing was started, and the remedy is the caller's
        except SdbatchError as error:
            LOG.warning("stopped", extra={"run_id": self.run_id, "error": str(error)})
            return "stopped", str(error)
        finally:
            if self._dispatcher is not None:
                self._tally.counts.worker_deaths = self._dispatcher.worker_deaths
        if self._stop_reason:
            return "stopped", self._stop_reason
        if self._tally.outputs_ended == self._tally.outputs_pending:
            return self._ended("done"), None  # complete, even when somebody asked it to stop meanwhile
        if self._dispatcher.refused_gpu_s is not None:
            self._is_over_budget = True
            return "stopped", self._costs.reached(self._dispatcher.refused_gpu_s)
        if self._interrupt.count:
            return "interrupted", "stopped by a signal; run again to go on"
        if self._lease.is_cancelled:
            return "cancelled", "cancelled through the store; run again to go on"
        return self._ended("done"), None

    def _ended(self, state: State) -> State:
        return "failed" if self._tally.counts.rows_failed else state

    def write_status(self, state: str) -> None:
        """Replace the run's `status.json`."""
        self._records.write_status(
            state, self._tally, self._snapshot(), self._costs.record(), waits_for=self._waiting.causes
        )

    def write_gallery(self, state: State, message: str | None) -> None:
        """Add to the gallery what a run that ends early has made, unless the driver is to stop at once."""
        if self._gallery is not None and self._interrupt.count < 2 and not self._lease.is_lost:
            self._gallery.close(state, self.told_to_gallery(message))

    def stop_gallery(self) -> None:
        """Let a write of the gallery that is under way end."""
        if self._gallery is not None:
            self._gallery.stop()

    def told_to_gallery(self, message: str | None = None) -> dict[str, Any]:
        """Return what the gallery says of the run's progress; see `state_values`."""
        snapshot = self._snapshot()
        rate, eta_s = rate_and_eta(snapshot)
        return {
            "made": snapshot.outputs_ended,
            "pending": snapshot.outputs_pending,
            "failed": snapshot.rows_failed,
            "rate_per_s": rate,
            "eta_s": eta_s,
            "workers": snapshot.workers,
            "message": message,
        }

    def write_snapshot(self, history: History | None) -> None:
        """Write what is done when it is time, unless the driver is to stop at once or lost its lease."""
        if self._interrupt.count < 2 and not self._lease.is_lost:
            self._records.write_snapshot(history)

    def end(self, state: State, message: str | None) -> RunResult:
        """Write how the run ended, and return it."""
        # A bound on failed rows that was reached counts as failed rows; any other stop is a fault.
        stopped = 6 if self._is_over_budget else 3 if self._stop_reason else 1
        exit_code = {"done": 0, "failed": 3, "stopped": stopped}.get(state, 130)
        result = RunResult(
            run_id=self.run_id,
            output=self._store.url,
            state=state,
            exit_code=exit_code,
            counts=self._tally.counts.as_dict(),
            failures=dict(sorted(self._tally.failures.items())),
            wall_s=time.monotonic() - self._started_s,
            message=message,
            warnings=self._warnings(),
            rows_leaving=self._leaving.num_rows,
            outputs_waiting=self._tally.outputs_waiting,
            outputs_given_up=self._tally.outputs_given_up,
            **self._costs.result(),
            campaign=self._tally.campaign(self._manifest.scanned.num_rows),
            first_failures=tuple(map(_failure, self._tally.first_failures)),
        )
        dispatcher = self._dispatcher
        facts, rates = (dispatcher.facts, dispatcher.rates) if dispatcher else ({}, {})
        # What stopped a run may keep its records from being written; why it stopped is said all the same.
        with self._records.tolerated("status", is_last=state == "stopped"):
            self.write_status(state)
        with self._records.tolerated("run.json", is_last=state == "stopped"):
            self._records.write_run_json(result, facts, rates, spending=self._costs.record(), paces=self._costs.paces())
        return result

    def _warnings(self) -> tuple[str, ...]:
        leaving = [str(self._leaving)] if self._leaving.num_rows else []
        manifest = grouped(self._manifest.scanned.warnings)
        truncated = self._tally.counts.rows_truncated
        cut = [f"{truncated} row(s) have a prompt that is longer than the text encoder reads; its end was left out"]
        return (
            *leaving,
            *manifest,
            *review_lines(self._tally.outputs_waiting, self._tally.outputs_given_up, self._job.limits.rerolls),
            *(cut if truncated else ()),
            *self._tally.waiting_lines,
            *self._tally.withdrawn_lines,
            *(self._dispatcher.warnings if self._dispatcher else ()),
        )

    # --- wiring -----------------------------------------------------------------------------------------------------

    def _start_executor(self) -> SlotExecutor:
        """Start what runs the workers; it is kept at once, since who asked may be interrupted before it hears of it."""
        self._executor = self._build_executor()
        return self._executor

    def _build_executor(self) -> SlotExecutor:
        spec = WorkerSpec(
            job=_as_seen_from_here(self._job),
            output=self._store.url,
            run_id=self.run_id,
            lease_epoch=self._lease.holder.epoch,
            lease_token=self._lease.holder.token,
            revisions={name: model.combined_revision for name, model in self._manifest.scanned.models.items()},
            log_format=log_format(),
        )
        if self._workers.in_process:
            from sdbatch.dispatch.in_process import InProcessExecutor

            return InProcessExecutor(spec, self._workers.path)
        from sdbatch.dispatch.ray_cluster import RayExecutor

        workers = self._workers
        return RayExecutor(
            spec, workers.path, num_cpus=num_cpus_of(self._job), allow_open=workers.allow_open, ahead=workers.ahead
        )

    def _classified(self, done: Done, columns: Sequence[str] | None = None) -> Iterator[ClassifiedRows]:
        parts = self._manifest.parts(columns and columns_for(done, columns))
        scanned, limits = self._manifest.scanned, self._job.limits
        return classify(parts, done, self._selection, scanned.stages_digest, limits.rerolls)

    def _shapes(self, executor: SlotExecutor) -> dict[str, Shape]:
        return {name: executor.settled(shape) for name, shape in shapes_of(self._job).items()}

    def _worker_count(self) -> int | None:
        count = self._job.workers.count
        return count if isinstance(count, int) and not self._workers.in_process else None

    def _build_dispatcher(self, executor: SlotExecutor, done: Done) -> Dispatcher:
        plan = Plan(
            requests=requests_of(self._classified(done), self._sharing),
            cost_tflop=self._tally.cost_pending,
            shapes=self._shapes(executor),
            worker_count=self._worker_count(),
            worker_max=self._job.workers.max,
            start_timeout_s=self._job.limits.start_timeout_s,
            bisect=bisected,
            recover=self._recover,
            standards=self._records.standards,
            refuse_unlike=self._job.determinism == "exact",
            shortage=executor.shortage,
            can_hold=executor.can_hold,
            allowance=self._costs.begin(self._tally.work),
        )
        window = Window(
            {name: model.batch_size for name, model in self._job.models.items()},
            {name: model.family for name, model in self._manifest.scanned.models.items()},
        )
        return Dispatcher(
            executor,
            window,
            plan,
            on_receipt=self._on_receipt,
            on_set_aside=self._on_set_aside,
            on_tick=self._on_tick,
            should_stop=self._should_stop,
            fleet=self._fleet,
        )

    # --- what the dispatcher calls ----------------------------------------------------------------------------------

    def _on_receipt(self, unit: Unit, receipt: Receipt) -> None:
        self._tally.count_receipt(receipt)
        if self._dispatcher:
            facts = self._dispatcher.facts.get(receipt.worker, {})
            self._records.note_receipt(unit, receipt, facts)
            self._costs.note(unit, receipt, facts)
        self._record(unit, receipt.outcomes)

    def _on_set_aside(self, unit: Unit, worker: str, outcome: Outcome, message: str) -> None:
        """Commit a request that ended its process, or missed its deadline, while it ran alone."""
        attempts = unit.requests[0].attempt + 1
        error_class = ROW_FAILURES[outcome.records or ""]
        text = f"alone in its process, in {attempts} of {attempts} tries: {message}"
        rows = failed_unit_rows(unit, worker, error_class, text, attempts)
        if not put_commit(self._store, self.run_id, unit.id, rows):  # committed after all, by a worker given up earlier
            rows = read_commit(self._store, layout.commit(self.run_id, unit.id)).to_pylist()
        self._record(unit, outcomes_of(rows))

    def _recover(self, unit: Unit) -> Receipt | None:
        """Return the receipt of a unit that was committed before its worker was lost; None when it was not.

        None also when the store does not answer: the unit is then made again, and its commit meets the first one.
        """
        path = layout.commit(self.run_id, unit.id)
        try:
            self._store.stat(path)
            rows = read_commit(self._store, path).to_pylist()
        except (FileNotFoundError, StoreUnavailable):
            return None
        return receipt_of(unit.id, rows[0].get("worker") or "", rows)

    def _record(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        self._tally.count_outcomes(unit, outcomes)
        self._records.index_commit(unit, outcomes)
        if self._gallery is not None:
            self._gallery.committed(unit.id)
        failed_fraction, failed_fraction_max = self._tally.failed_fraction, self._job.limits.failed_fraction
        if failed_fraction > failed_fraction_max:
            self._stop_reason = (
                f"{failed_fraction:.1%} of the finished rows failed, over limits.failed_fraction = "
                f"{failed_fraction_max:g}"
            )

    def _on_tick(self) -> None:
        self._lease.check()
        if self._working_since_s is None and self._dispatcher and self._dispatcher.num_workers:
            self._working_since_s = time.monotonic()
        self._costs.tick()
        snapshot = self._snapshot()
        self._progress.show(snapshot)
        if line := self._waiting.look(time.monotonic(), snapshot.workers, self._waits_for):
            self._progress.say(line)
        self._observe(snapshot)
        if self._gallery is not None:
            self._gallery.tick(self.told_to_gallery)
        if self._records.is_status_due:
            with self._records.tolerated("status"):
                self.write_status("running")

    def _waits_for(self) -> Mapping[str, Wait]:
        return {} if self._dispatcher is None else self._dispatcher.waits_for

    def _should_stop(self) -> bool:
        return self._interrupt.count > 0 or self._stop_reason is not None or self._lease.is_cancelled

    def _observe(self, snapshot: Snapshot) -> None:
        if self._executor is None or self._dispatcher is None:
            return
        counts = self._tally.counts
        self._executor.observe(
            Observation(
                workers=snapshot.workers,
                units_in_flight=snapshot.in_flight,
                assets_pending=snapshot.outputs_pending - snapshot.outputs_ended,
                rows_ok=counts.rows_ok,
                rows_failed=counts.rows_failed,
                rows_reused=counts.rows_reused,
                worker_deaths=self._dispatcher.worker_deaths,
                retries=self._dispatcher.retries,
            )
        )

    def _snapshot(self) -> Snapshot:
        return self._tally.snapshot(
            working_s=time.monotonic() - self._working_since_s if self._working_since_s else 0.0,
            workers=self._dispatcher.num_workers if self._dispatcher else 0,
            in_flight=self._dispatcher.num_in_flight if self._dispatcher else 0,
        )


def _failure(outcome: RowOutcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in ("id", "n", "error_type", "error_message")}


def _as_seen_from_here(job: Job) -> dict[str, object]:
    """Return a job for workers, whose working directories may be others: the places of sources are absolute."""
    values = {**job.model_dump(mode="json"), "on_end": []}
    values["sources"]["allow"] = [parse_url(place).url for place in job.sources.allow]
    return values

"""One run, from the lease to the gallery.

    Spool + Done --> pending requests --> Dispatcher --> commits --> index, metadata, gallery, run.json

Kill it at any moment: what is in flight lives here, in memory, and all else is in the campaign.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import mul
from types import FrameType
from typing import Any, Literal

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.lease import Lease, acquire
from sdbatch.campaign.read import Done, done_of, effective_parts, index_of, read_commit, read_index
from sdbatch.campaign.schema import VOID, table, to_parquet
from sdbatch.campaign.write import failed_unit_rows, outcomes_of, put_commit, receipt_of
from sdbatch.dispatch.dispatcher import Dispatcher, Plan
from sdbatch.dispatch.executor import WORKER, Executor, Shape
from sdbatch.driver.scan import COUNTED, ResolvedManifest
from sdbatch.driver.select import Selection, check_selection, classify, requests_of
from sdbatch.errors import ROW_FAILURES, SdbatchError, StoreUnavailable
from sdbatch.job import Job
from sdbatch.logs import log_format
from sdbatch.outcomes import Outcome
from sdbatch.plan.window import Window, bisected
from sdbatch.report.gallery import gallery_pages
from sdbatch.report.progress import Progress, Snapshot, rate_and_eta
from sdbatch.storage import Store, open_store
from sdbatch.types import FORMAT_VERSION, Counts, Observation, Receipt, RowOutcome, Unit, WorkerSpec

LOG = logging.getLogger("sdbatch.driver")
INDEX_EVERY_COMMITS = 1000
INDEX_ROWS_MAX = 65_536
"""Rows of one index file; they are held in memory until it is written."""

STATUS_EVERY_S = 2.0
FAILED_FRACTION_FROM = 100
"""`limits.failed_fraction` is looked at once so many rows have finished."""

State = Literal["done", "failed", "interrupted", "cancelled", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_id: Its id.
        output: The campaign.
        state: `done`, `failed` (some rows), `stopped` (a bound or a fault), `interrupted` (signal) or `cancelled`.
        exit_code: See DESIGN 5: 0, 1, 3 or 130.
        counts: What was made.
        failures: Failed rows of the manifest by class.
        wall_s: From start to end.
        message: Why it stopped; None when it did not.
    """

    run_id: str
    output: str
    state: State
    exit_code: int
    counts: dict[str, int]
    failures: dict[str, int]
    wall_s: float
    message: str | None = None


@dataclass(slots=True, kw_only=True)
class _RunTally:
    """What a run counts while it goes."""

    counts: Counts = field(default_factory=Counts)
    failures: dict[str, int] = field(default_factory=dict)
    outputs_pending: int = 0
    outputs_ended: int = 0
    cost_pending: float = 0.0
    cost_ended: float = 0.0
    index: list[pa.Table] = field(default_factory=list)
    index_files: int = 0

    def count_outcomes(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        """Count a unit's requests: ok when each of its outputs is."""
        bad = {outcome.id: outcome.error_type or "unknown" for outcome in outcomes}
        for kind in bad.values():
            self.failures[kind] = self.failures.get(kind, 0) + 1
        self.counts.rows_failed += len(bad)
        self.counts.rows_ok += len(unit.requests) - len(bad)
        self.outputs_ended += unit.num_outputs
        self.cost_ended += unit.cost_tflop
        self.counts.units_committed += 1

    def count_receipt(self, receipt: Receipt) -> None:
        """Add a receipt's counts."""
        self.counts.model_calls += receipt.model_calls
        self.counts.rows_generated += receipt.rows_generated
        self.counts.assets_put += receipt.assets_put
        self.counts.assets_adopted += receipt.assets_adopted
        self.counts.model_loads += receipt.load_s > 0

    @property
    def failed_fraction(self) -> float:
        """Share of the rows finished in this run that failed; 0 before `FAILED_FRACTION_FROM` have finished."""
        finished = self.counts.rows_ok + self.counts.rows_failed
        return self.counts.rows_failed / finished if finished >= FAILED_FRACTION_FROM else 0.0


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interrupt:
    """SIGINT and SIGTERM: once, finish what is in flight; twice, now."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        os.write(2, b"sdbatch: finishing what is in flight; a second signal stops at once\n")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals while the block runs; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.arm()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def arm(self) -> None:
        """Take the signals; done again once Ray runs, whose start puts a handler of its own on SIGTERM."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self)


def run_job(
    job: Job,
    *,
    selection: Selection,
    in_process: bool,
    progress: Progress,
    void: Sequence[Mapping[str, Any]] = (),
    remove: Sequence[str] = (),
    worker: str = WORKER,
) -> RunResult:
    """Make what is missing of a job's campaign.

    Args:
        job: The job.
        selection: Which rows.
        in_process: One worker in this process instead of a Ray cluster.
        progress: Shown while it runs.
        void: Outputs (id, request_key, n) whose earlier commits no longer count.
        remove: Damaged assets.
        worker: Dotted path of the class that makes units; another one for what measures all around it.

    Raises:
        UserError, CampaignHeld: Before anything was written.
    """
    interrupt = _Interrupt()
    with interrupt.installed():
        resolved_manifest = ResolvedManifest(job)
        try:
            check_selection(resolved_manifest, selection)
            store = open_store(job.output, job.storage)
            lease = acquire(store)
            run = _Run(job, resolved_manifest, store, lease, selection, interrupt, progress)
            try:
                return run.run(in_process, worker, void, remove)
            except BaseException:
                with suppress(SdbatchError, OSError):
                    run.write_status("stopped")
                raise
            finally:
                lease.release()
        finally:
            resolved_manifest.close()


class _Run:
    """One run, from the lease to the gallery."""

    def __init__(
        self,
        job: Job,
        resolved_manifest: ResolvedManifest,
        store: Store,
        lease: Lease,
        selection: Selection,
        interrupt: _Interrupt,
        progress: Progress,
    ) -> None:
        self._job = job
        self._manifest = resolved_manifest
        self._store = store
        self._lease = lease
        self._selection = selection
        self._interrupt = interrupt
        self._progress = progress
        self._started_at = datetime.now(UTC)
        self._started_s = time.monotonic()
        self._id = layout.run_id(lease.holder.epoch, self._started_at.strftime("%Y%m%dT%H%M%SZ"))
        self._tally = _RunTally()
        self._status_s = 0.0
        self._working_s: float | None = None
        self._dispatcher: Dispatcher | None = None
        self._executor_in_use: Executor | None = None
        self._stop_reason: str | None = None

    def run(self, in_process: bool, worker: str, void: Sequence[Mapping[str, Any]], remove: Sequence[str]) -> RunResult:
        """See `run_job`."""
        # Removed first: a kill between the two leaves a missing asset, which `verify` and so the next redo find.
        for asset in remove:
            self._store.delete(asset)
        if void:
            self._store.put_new(layout.redo(self._id), to_parquet(table(void, VOID)))
        done = done_of(read_index(self._store))
        self._count_pending(done)
        self._manifest.publish(self._store, self._id)
        self.write_status("running")
        state, message = self._make(done, in_process, worker)
        counts = self._tally.counts
        if state == "done" and counts.rows_failed:
            state = "failed"
        if state in {"done", "failed"}:
            self._progress.say("writing metadata and gallery")
            write_metadata(self._store, self._id, self._lease.confirm)
        exit_code = {"done": 0, "failed": 3, "stopped": 3 if self._stop_reason else 1}.get(state, 130)
        result = RunResult(
            run_id=self._id,
            output=self._store.url,
            state=state,
            exit_code=exit_code,
            counts=counts.as_dict(),
            failures=dict(sorted(self._tally.failures.items())),
            wall_s=time.monotonic() - self._started_s,
            message=message,
        )
        self.write_status(state)
        self._write_run_json(result)
        return result

    def _make(self, done: Done, in_process: bool, worker: str) -> tuple[State, str | None]:
        """Run the dispatcher when there is anything to make; say how it ended."""
        if not self._tally.outputs_pending:
            return "done", None
        try:
            with self._progress:
                self._progress.say("starting workers")
                self._executor_in_use = self._executor(in_process, worker)
                self._interrupt.arm()
                count = self._worker_count(in_process)
                self._dispatcher = self._build_dispatcher(self._executor_in_use, done, count)
                self._dispatcher.run()
        except KeyboardInterrupt:
            return "interrupted", "stopped at once by a second signal"
        except SdbatchError as error:
            LOG.warning("stopped", extra={"run_id": self._id, "error": str(error)})
            return "stopped", str(error)
        finally:
            if self._executor_in_use is not None:
                self._executor_in_use.close()
            if self._dispatcher is not None:
                self._tally.counts.worker_deaths = self._dispatcher.worker_deaths
        if self._stop_reason:
            return "stopped", self._stop_reason
        if self._tally.outputs_ended == self._tally.outputs_pending:
            return "done", None  # whatever was asked of it meanwhile
        if self._interrupt.count:
            return "interrupted", "stopped by a signal; run again to go on"
        if self._lease.is_cancelled:
            return "cancelled", "cancelled through the store; run again to go on"
        return "done", None

    def _count_pending(self, done: Done) -> None:
        book = self._tally
        for part in classify(self._manifest.parts(COUNTED), done, self._selection):
            numbers = list(map(len, part.outputs))
            book.outputs_pending += sum(numbers)
            book.cost_pending += sum(map(mul, part.rows.column("cost_tflop").to_pylist(), numbers))
            book.counts.rows_reused += part.reasons.count("reused")
            for row in part.rows_for("failed").to_pylist():
                book.counts.rows_failed += 1
                kind = done.failed[row["id"], row["request_key"]].error_type
                book.failures[kind] = book.failures.get(kind, 0) + 1

    def _executor(self, in_process: bool, worker: str) -> Executor:
        spec = WorkerSpec(
            job=self._job.model_dump(mode="json"),
            output=self._store.url,
            run_id=self._id,
            lease_epoch=self._lease.holder.epoch,
            lease_token=self._lease.holder.token,
            revisions={name: model.revision for name, model in self._manifest.scanned.models.items()},
            log_format=log_format(),
        )
        if in_process:
            from sdbatch.dispatch.in_process import InProcessExecutor

            return InProcessExecutor(spec, worker)
        from sdbatch.dispatch.ray_cluster import RayExecutor

        cpus = sum(shape.num_cpus for shape in set(self._shapes().values())) * (self._worker_count(in_process) or 0)
        return RayExecutor(spec, worker, num_cpus=cpus or None)

    def _shapes(self) -> dict[str, Shape]:
        return {
            name: Shape(num_gpus=model.num_gpus, num_cpus=model.num_cpus, memory_gib=model.memory_gib)
            for name, model in self._job.models.items()
        }

    def _worker_count(self, in_process: bool) -> int | None:
        count = self._job.workers.count
        return count if isinstance(count, int) and not in_process else None

    def _build_dispatcher(self, executor: Executor, done: Done, worker_count: int | None) -> Dispatcher:
        plan = Plan(
            requests=requests_of(classify(self._manifest.parts(), done, self._selection)),
            cost_tflop=self._tally.cost_pending,
            shapes=self._shapes(),
            worker_count=worker_count,
            worker_max=self._job.workers.max,
            start_timeout_s=self._job.limits.start_timeout_s,
            bisect=bisected,
            recover=self._recover,
        )
        return Dispatcher(
            executor,
            Window(
                {name: model.batch_size for name, model in self._job.models.items()},
                {name: model.family for name, model in self._manifest.scanned.models.items()},
            ),
            plan,
            on_receipt=self._on_receipt,
            on_set_aside=self._on_set_aside,
            on_tick=self._on_tick,
            should_stop=self._should_stop,
        )

    # --- what the dispatcher calls ----------------------------------------------------------------------------------

    def _on_receipt(self, unit: Unit, receipt: Receipt) -> None:
        self._tally.count_receipt(receipt)
        self._record(unit, receipt.outcomes)

    def _on_set_aside(self, unit: Unit, worker: str, outcome: Outcome, message: str) -> None:
        """Commit a request that ended its process, or missed its deadline, while it ran alone."""
        attempts = unit.requests[0].attempt + 1
        kind = ROW_FAILURES[outcome.records or ""]
        text = f"alone in its process, in {attempts} of {attempts} tries: {message}"
        rows = failed_unit_rows(unit, worker, kind, text, attempts)
        if not put_commit(self._store, self._id, unit.id, rows):  # made after all, by a worker that was given up
            rows = read_commit(self._store, layout.commit(self._id, unit.id)).to_pylist()
        self._record(unit, outcomes_of(rows))

    def _recover(self, unit: Unit) -> Receipt | None:
        """Return the receipt of a unit that was committed before its worker was lost; None when it was not.

        None also when the store does not say: then the unit is made again, and its commit meets the first one.
        """
        path = layout.commit(self._id, unit.id)
        try:
            self._store.stat(path)
            rows = read_commit(self._store, path).to_pylist()
        except (FileNotFoundError, StoreUnavailable):
            return None
        return receipt_of(unit.id, rows[0].get("worker") or "", rows)

    def _record(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        book = self._tally
        book.count_outcomes(unit, outcomes)
        book.index.append(index_of(unit, outcomes, layout.commit(self._id, unit.id)))
        if len(book.index) >= INDEX_EVERY_COMMITS or sum(part.num_rows for part in book.index) >= INDEX_ROWS_MAX:
            with self._tolerated("index"):
                index = to_parquet(pa.concat_tables(book.index))
                self._store.put_new(layout.index(self._id, book.index_files), index)
                book.index, book.index_files = [], book.index_files + 1
        if book.failed_fraction > self._job.limits.failed_fraction:
            self._stop_reason = (
                f"{book.failed_fraction:.1%} of the finished rows failed, over limits.failed_fraction = "
                f"{self._job.limits.failed_fraction:g}"
            )

    def _on_tick(self) -> None:
        self._lease.check()
        if self._working_s is None and self._dispatcher and self._dispatcher.num_workers:
            self._working_s = time.monotonic()
        snapshot = self._snapshot()
        self._progress.show(snapshot)
        self._observe(snapshot)
        if time.monotonic() - self._status_s >= STATUS_EVERY_S:
            with self._tolerated("status"):
                self.write_status("running")

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """Let a write that can wait fail: the lease decides how long a run lives without its store."""
        try:
            yield
        except StoreUnavailable as error:
            LOG.warning("not written", extra={"run_id": self._id, "what": what, "error": str(error)})

    def _observe(self, snapshot: Snapshot) -> None:
        if self._executor_in_use is None or self._dispatcher is None:
            return
        counts = self._tally.counts
        self._executor_in_use.observe(
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

    def _should_stop(self) -> bool:
        return self._interrupt.count > 0 or self._stop_reason is not None or self._lease.is_cancelled

    # --- records ----------------------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        book = self._tally
        return Snapshot(
            working_s=time.monotonic() - self._working_s if self._working_s else 0.0,
            outputs_ended=book.outputs_ended,
            outputs_pending=book.outputs_pending,
            cost_share=book.cost_ended / book.cost_pending if book.cost_pending else 1.0,
            rows_failed=book.counts.rows_failed,
            workers=self._dispatcher.num_workers if self._dispatcher else 0,
            in_flight=self._dispatcher.num_in_flight if self._dispatcher else 0,
        )

    def write_status(self, state: str) -> None:
        """Replace the run's `status.json`."""
        self._status_s = time.monotonic()
        snapshot = self._snapshot()
        rate, eta_s = rate_and_eta(snapshot)
        status = {
            "format_version": FORMAT_VERSION,
            "run_id": self._id,
            "state": state,
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": self._manifest.scanned.num_rows,
            "assets_pending": snapshot.outputs_pending - snapshot.outputs_ended,
            "assets_ended": snapshot.outputs_ended,
            "rate_per_s": rate,
            "eta_s": eta_s if state == "running" else None,
            "workers": snapshot.workers,
            "units_in_flight": snapshot.in_flight,
            "counts": self._tally.counts.as_dict(),
            "failures": self._tally.failures,
        }
        self._store.put(layout.status_json(self._id), _json(status), "application/json")

    def _write_run_json(self, result: RunResult) -> None:
        names = ("sdbatch", "ray", "torch", "diffusers", "transformers", "pyarrow", "pillow", "fsspec", "s3fs")
        record = {
            "format_version": FORMAT_VERSION,
            "run_id": self._id,
            "state": result.state,
            "exit_code": result.exit_code,
            "message": result.message,
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "wall_s": round(result.wall_s, 3),
            "job": self._job.model_dump(mode="json"),
            "models": {
                name: {"path": model.path, "revision": model.revision, "family": model.family.title}
                for name, model in self._manifest.scanned.models.items()
            },
            "manifest": {"rows": self._manifest.scanned.num_rows, "shards": self._manifest.scanned.num_shards},
            "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}},
            "workers": self._dispatcher.facts if self._dispatcher else {},
            "rate_tflop_per_s": self._dispatcher.rates if self._dispatcher else {},
            "counts": result.counts,
            "failures": result.failures,
        }
        self._store.put_new(layout.run_json(self._id), _json(record), "application/json")


def write_metadata(store: Store, run: str, confirm: Callable[[], None] = lambda: None) -> int:
    """Compact a run's effective rows, point `latest.json` at them and write the gallery; return their number.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        confirm: Raises when the campaign is no longer ours; asked before anything is replaced.
    """
    index = read_index(store)
    num_rows = 0
    for number, part in enumerate(effective_parts(store, run, index)):
        num_rows += part.num_rows
        store.put_new(layout.part(run, number), to_parquet(part, run_id=run), "application/vnd.apache.parquet")
    latest = {"format_version": FORMAT_VERSION, "run_id": run, "path": layout.metadata(run), "rows": num_rows}
    confirm()
    store.put(layout.LATEST, _json(latest), "application/json")
    write_gallery(store, run, index, num_rows)
    return num_rows


def write_gallery(store: Store, run: str, index: pa.Table, num_rows: int) -> None:
    """Write the gallery of a run's effective rows."""
    parts = effective_parts(store, run, index, thumbnails=True)
    for name, html in gallery_pages(store.url, run, parts, num_rows):
        store.put(f"{layout.REPORT}/{name}", html, "text/html; charset=utf-8")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n").encode()

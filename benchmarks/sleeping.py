"""Workers without a model, for what is the engine's own: they sleep as long as a row would cost, or not at all.

    engine.run(job, "benchmarks.sleeping:SleepingWorker")     all else is real: driver, policy, actors, commits

Nothing here imports torch, so that many of them fit on a small machine.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from sdbatch.campaign.write import put_commit, receipt_of, request_columns
from sdbatch.collector import left_to_stay
from sdbatch.job import parse_job
from sdbatch.recipe import parse_recipes
from sdbatch.storage import open_store
from sdbatch.types import OnCall, Receipt, Request, Running, Unit, WorkerSpec
from sdbatch.without_pandas import keep_pandas_out

STARTED = "SDBATCH_BENCH_STARTED"
"""Environment variable: a folder in which every worker leaves the wall clock of its first unit, under its name."""

TFLOP_PER_S = "SDBATCH_BENCH_TFLOP_PER_S"
"""Environment variable: what a sleeping worker does a second; 1 by default."""

ERROR = 0.3
"""Costs are known within this: half of the error is a batch key's own, half each row's."""


def cost_error(request_id: str, batch_key: str) -> float:
    """Return true over predicted cost of a row, in 1 - ERROR to 1 + ERROR, the same wherever it is asked."""
    shares = [
        int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**47 - 1 for text in (request_id, batch_key)
    ]
    return 1 + ERROR * sum(shares) / 2


class NoopWorker:
    """Commits every row without making it; a unit is one call."""

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall) -> None:
        self._name = name
        self._run_id = spec.run_id
        self._store = open_store(spec.output, parse_job(spec.job).storage)
        self._on_call = on_call
        self._model = threading.Lock()
        self._has_started = False

    def prepare_process(self) -> None:
        """Keep pandas out and what is imported out of the collector's sight, as a worker with a model does."""
        keep_pandas_out()
        with left_to_stay():
            pass

    def start(self) -> dict[str, str]:
        """Be ready at once."""
        return {"pid": str(os.getpid())}

    def running(self) -> tuple[Running, ...]:
        """Nothing here takes long enough to be watched."""
        return ()

    def run_unit(self, unit: Unit) -> Receipt:
        """Make and commit a unit."""
        self._note_start()
        with self._model:
            spent_s = self._make(unit)
        share = {
            "denoise_s": spent_s / unit.num_outputs,
            "batch_size": unit.num_outputs,
            "worker": self._name,
            "status": "ok",
            "adopted": False,
        }
        recipes = parse_recipes(request.recipe for request in unit.requests)
        rows = [
            request_columns(request, recipe, n) | share
            for request, recipe in zip(unit.requests, recipes, strict=True)
            for n in request.outputs
        ]
        put_commit(self._store, self._run_id, unit.id, rows)
        return receipt_of(unit.id, self._name, rows)

    def _make(self, unit: Unit) -> float:
        """Make a unit; return what its rows cost in seconds."""
        begin_s = time.perf_counter()
        self._on_call(unit.id, tuple(request.id for request in unit.requests))
        return time.perf_counter() - begin_s

    def _note_start(self) -> None:
        folder = os.environ.get(STARTED)
        if folder and not self._has_started:
            Path(folder, f"{self._run_id}-{self._name}").write_text(repr(time.time()))
        self._has_started = True


class SleepingWorker(NoopWorker):
    """Sleeps as long as a unit's rows truly cost: the prediction, and its error."""

    def _make(self, unit: Unit) -> float:
        rate = float(os.environ.get(TFLOP_PER_S, "1"))
        cost_s = 0.0
        for start in range(0, len(unit.requests), unit.batch_size):
            batch = unit.requests[start : start + unit.batch_size]
            self._on_call(unit.id, tuple(request.id for request in batch))
            batch_s = sum(map(true_cost_tflop, batch)) / rate
            time.sleep(batch_s)
            cost_s += batch_s
        return cost_s


def true_cost_tflop(request: Request) -> float:
    """Return what a request costs a sleeping worker."""
    return request.cost_tflop * len(request.outputs) * cost_error(request.id, request.batch_key)

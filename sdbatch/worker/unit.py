r"""One unit from fetch to commit; two of them are in flight, so that the model waits for nobody.

Unit --> copy, fetch sources --> generate (one at a time) --> encode, put --> commit --> Receipt
         \____ before the lock ____/   the lock        \____ threads, behind it ____/

A unit is committed as one file; one that is made twice is committed once.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.write import put_commit, with_lineage
from sdbatch.job import Job
from sdbatch.points import reached
from sdbatch.storage import Store
from sdbatch.types import OnCall, Phase, Receipt, Request, Unit
from sdbatch.worker.copies import Copier
from sdbatch.worker.finish import Finisher, frames_bytes
from sdbatch.worker.outputs import CallPlan, FailedOutput, PendingOutput, RenderedOutput, RenderTally
from sdbatch.worker.record import Recorder, Row, unit_receipt
from sdbatch.worker.render import Renderer

LOG = logging.getLogger("sdbatch.worker")
FETCH_MAX_S: Final = 600.0
FINISH_MAX_S: Final = 600.0
"""Longest a unit may fetch its sources while none of them comes further, and encode, upload and commit; the store's own
bounds, and those of decoding, end a single call."""

OnPhase = Callable[[str, Phase, float, tuple[str, ...]], None]
"""Told the unit, the phase it enters, the seconds it may stay in it, and the request ids in the pipeline call."""


class UnitMaker:
    """Makes and commits units; several threads may do so at once.

    Args:
        worker: Name of the worker.
        job: The job.
        renderer: Renders; one lock is held around its `generate`.
        store: The campaign's.
        run_id: The run that the units belong to.
        on_phase: Told where every unit is.
        on_call: Told the unit and the request ids of every pipeline call before it runs.
    """

    def __init__(
        self,
        worker: str,
        job: Job,
        renderer: Renderer,
        store: Store,
        run_id: str,
        on_phase: OnPhase = lambda *_: None,
        on_call: OnCall = lambda *_: None,
    ) -> None:
        self.worker = worker
        self.job = job
        self.renderer = renderer
        self.store = store
        self.run_id = run_id
        self.on_phase = on_phase
        self.on_call = on_call
        self.generating = threading.Lock()
        self.recorder = Recorder(job=job, worker=worker)
        self.finisher = Finisher(job, store, self.recorder)
        self.copier = Copier(store, worker)

    def make(self, unit: Unit) -> Receipt:
        """Make and commit one unit; outputs that cannot be made are recorded as failures.

        Raises:
            MachineError: When something around the rows failed; nothing was committed.
        """
        return _UnitInProgress(unit, self).run()


class _UnitInProgress:
    """One unit on its way through the phases, with the rows it has so far."""

    def __init__(self, unit: Unit, maker: UnitMaker) -> None:
        self._unit = unit
        self._maker = maker
        self._tally = RenderTally()
        self._rows: list[Row] = []
        self._finishing: list[Future[list[Row]]] = []
        self._num_outputs = unit.num_outputs  # counted once: it goes through all requests
        self._handful: list[RenderedOutput] = []
        self._handful_bytes = 0

    def run(self) -> Receipt:
        """Take the unit through every phase."""
        self._enter("fetch", FETCH_MAX_S)
        self._rows, requests = self._maker.copier.copy(self._unit.requests)
        outputs = self._fetch(requests)
        if outputs:
            self._enter("wait", math.inf)
            with self._maker.generating:
                self._begin_load()
                self._generate(outputs)
        self._enter("finish", FINISH_MAX_S)
        for future in self._finishing:
            self._rows += future.result()
        return self._commit()

    def _enter(self, phase: Phase, bound_s: float, ids: tuple[str, ...] = ()) -> None:
        self._maker.on_phase(self._unit.id, phase, bound_s, ids)

    def _begin_load(self) -> None:
        """Let the time to load begin, or begin anew: what is copied or digested has no bound, standing still has."""
        self._enter("load", self._maker.job.limits.start_timeout_s)

    def _fetch(self, requests: Sequence[Request]) -> list[PendingOutput]:
        outputs: list[PendingOutput] = []
        for output in self._maker.renderer.fetch(requests, lambda ids: self._enter("fetch", FETCH_MAX_S, ids)):
            if isinstance(output, PendingOutput):
                outputs.append(output)
            else:
                self._rows += self._maker.recorder.failed_rows(output)
        reached("after-fetch")
        return outputs

    def _generate(self, outputs: list[PendingOutput]) -> None:
        """Render all outputs; those of a call are handed on to the finishing threads as they come out."""
        unit = self._unit
        plan = CallPlan(batch_size=unit.batch_size, is_fixed=unit.solo, rate_tflop_per_s=unit.rate_tflop_per_s)
        rendered = self._maker.renderer.generate(outputs, plan, self._tally, self._begin_call, self._begin_load)
        for output in rendered:
            if isinstance(output, FailedOutput):
                self._rows += self._maker.recorder.failed_rows(output)
            else:
                self._take_along(output)
            del output  # so that its batch's pixels can be freed while the next batch is made
        self._hand_over()

    def _take_along(self, output: RenderedOutput) -> None:
        """Hand an output over to the finishing threads with others of its call, as many as are handed over together."""
        self._handful_bytes += frames_bytes(output)
        if self._handful_bytes > self._maker.finisher.handful_bytes_max:
            self._hand_over()
            self._handful_bytes = frames_bytes(output)
        self._handful.append(output)

    def _hand_over(self) -> None:
        """Give the finishing threads what was taken along, at the latest before the next call begins."""
        if not self._handful:
            return
        self._enter("finish", FINISH_MAX_S)  # it may wait for the encoders
        load_s = self._tally.load_s / self._num_outputs
        self._finishing.append(self._maker.finisher.submit(self._handful, load_s))
        self._handful, self._handful_bytes = [], 0

    def _begin_call(self, ids: tuple[str, ...], bound_s: float) -> None:
        self._hand_over()
        self._maker.on_call(self._unit.id, ids)
        self._enter("generate", bound_s, ids)

    def _commit(self) -> Receipt:
        unit, maker, rows = self._unit, self._maker, self._rows
        ids = [taker for request in unit.requests for taker in request.ids]
        order = {taker: place for place, taker in enumerate(ids)}
        rows.sort(key=lambda row: (order[row["id"]], row["n"] or 0))
        rows = with_lineage(rows, unit.requests)
        if not put_commit(maker.store, maker.run_id, unit.id, rows):
            # Another attempt at this unit was first; what stands is what is reported.
            rows = read_commit(maker.store, layout.commit(maker.run_id, unit.id)).to_pylist()
        LOG.info("committed", extra={"unit": unit.id, "model": unit.model, "rows": len(rows)})
        return unit_receipt(unit.id, maker.worker, rows, self._tally)

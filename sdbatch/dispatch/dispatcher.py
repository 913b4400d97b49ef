"""The driver's loop: keep the window full and every worker busy, turn events into decisions, remember nothing else.

    pending requests --> Window --> choose() --> Executor --> events --> receipts

What is in flight lives here, in memory; all else is in the campaign. Kill it at any moment and run again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from sdbatch.dispatch import policy
from sdbatch.dispatch.executor import Died, Done, Draining, Event, Executor, Faulted, Pulse, Ready, Shape
from sdbatch.errors import MachineError, ModelLoadFailed, SdbatchError, WorkersUnavailable
from sdbatch.outcomes import Outcome, outcome_of
from sdbatch.types import Backlog, Receipt, Request, Unit

WINDOW_REQUESTS = 16_384
"""Requests held at once: a few MiB, and enough for rare batch keys to find company."""

TICK_S = 0.5
STOP_WAIT_S = 60.0
"""Once a run is told to stop, how long units in flight may take to end."""


class WindowLike(Protocol):
    """What the dispatcher needs of the plan's window. See `sdbatch.plan.window.Window`."""

    num_requests: int

    def add(self, request: Request) -> None:
        """Take in one pending request."""

    def end(self) -> None:
        """Say that no further request is to come but what is given back."""

    def add_solo(self, requests: tuple[Request, ...], batch_size: int) -> None:
        """Take in suspects of a crash."""

    def has_solo(self) -> bool:
        """Whether suspects wait."""

    def peek_solo(self) -> Unit:
        """Return the oldest suspects."""

    def take_solo(self) -> Unit:
        """Hand out the oldest suspects."""

    def backlog(self) -> dict[str, Backlog]:
        """Return what waits by model."""

    def take(self, model: str, cost_max_tflop: float) -> Unit:
        """Hand out one unit of a model."""

    def drop(self, model: str) -> float:
        """Forget what waits for a model; return its cost."""


@dataclass(slots=True)
class _Worker:
    shape: Shape
    ready: bool = False
    draining: bool = False
    model: str | None = None
    units: dict[str, Unit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the dispatcher is to work off.

    Attributes:
        requests: Pending requests in manifest order.
        cost_tflop: Their predicted cost together.
        shapes: Slot shape of each model.
        worker_count: Workers per shape, None for as many as fit.
        worker_max: Most workers per shape.
        start_timeout_s: Longest wait for a first worker.
        bisect: Splits the requests of a unit whose process died.
        recover: Returns the receipt of a unit that was committed though its worker could not say so, else None.
    """

    requests: Iterator[Request]
    cost_tflop: float
    shapes: Mapping[str, Shape]
    worker_count: int | None
    worker_max: int
    start_timeout_s: float
    bisect: Callable[[Unit], list[tuple[Request, ...]]]
    recover: Callable[[Unit], Receipt | None]


class Dispatcher:
    """Works off a plan on an executor.

    Args:
        executor: Runs the workers.
        window: Groups requests into units.
        plan: What is to be done.
        on_receipt: Called with each unit and its receipt, in order of arrival.
        on_set_aside: Called with the unit of a request that ended its process, or missed its deadline, while it ran
            alone, with the worker, that outcome and what was seen.
        on_tick: Called at least every `TICK_S` seconds.
        should_stop: Asked between rounds; once it says so, nothing more is handed out.
    """

    def __init__(
        self,
        executor: Executor,
        window: WindowLike,
        plan: Plan,
        *,
        on_receipt: Callable[[Unit, Receipt], None],
        on_set_aside: Callable[[Unit, str, Outcome, str], None],
        on_tick: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._executor = executor
        self._window = window
        self._plan = plan
        self._on_receipt = on_receipt
        self._on_set_aside = on_set_aside
        self._on_tick = on_tick
        self._should_stop = should_stop
        self._workers: dict[str, _Worker] = {}
        self._roster = policy.Roster()
        self._num_ready: Counter[Shape] = Counter()
        self._draining: set[str] = set()
        self.num_in_flight = 0
        self._models: dict[Shape, frozenset[str]] = {
            shape: frozenset(name for name, other in plan.shapes.items() if other == shape)
            for shape in set(plan.shapes.values())
        }
        self._exhausted = False
        self._left_tflop = plan.cost_tflop
        self.rates: dict[str, float] = {}
        self._machine_faults = 0
        self._start_faults = 0
        self._load_faults: dict[str, int] = {}
        self._loaded: set[str] = set()
        self.lost_models: dict[str, SdbatchError] = {}
        self._last_handed: dict[str, int] = {}
        self._handed = 0
        self._num_started = 0
        self._first_ready = False
        self._alone_since_s = dict.fromkeys(self._models, time.monotonic())
        self._stopping_since_s: float | None = None
        self.failure: SdbatchError | None = None
        self.worker_deaths = 0
        self.retries = 0
        self.facts: dict[str, Mapping[str, str]] = {}

    def run(self) -> None:
        """Work until all is done, `should_stop` says so, or a fault stops the run.

        Raises:
            MachineError: When the run cannot go on; what was committed stays.
        """
        self._fill()
        self._start_workers()
        while self._is_unfinished():
            if not self._is_stopping():
                self._hand_out()
            for event in self._executor.wait(TICK_S):
                self._handle(event)
            self._release_drained()
            self._check_start()
            self._on_tick()
        if self.failure:
            raise self.failure
        if self.lost_models:
            first, *others = self.lost_models.values()
            raise type(first)("\n".join(str(error) for error in (first, *others)))

    @property
    def num_workers(self) -> int:
        """Workers that are ready."""
        return self._num_ready.total()

    def _is_stopping(self) -> bool:
        return self.failure is not None or self._should_stop()

    def _is_unfinished(self) -> bool:
        if self._is_stopping():
            self._stopping_since_s = self._stopping_since_s or time.monotonic()
            return self.num_in_flight > 0 and time.monotonic() - self._stopping_since_s < STOP_WAIT_S
        return self.num_in_flight > 0 or self._window.num_requests > 0 or not self._exhausted

    def _fill(self) -> None:
        while not self._exhausted and self._window.num_requests < WINDOW_REQUESTS:
            request = next(self._plan.requests, None)
            if request is None:
                self._exhausted = True
                self._window.end()
            elif request.model not in self.lost_models:
                self._window.add(request)

    def _start_workers(self) -> None:
        wanted = {model for model, entry in self._window.backlog().items() if entry.outputs}
        for shape, models in self._models.items():
            if self._exhausted and not models & wanted:
                continue
            count = self._plan.worker_count or self._executor.capacity(shape)
            if self._exhausted:  # no more workers than there are outputs to make
                outputs = sum(e.outputs for name, e in self._window.backlog().items() if name in models)
                count = min(count, outputs)
            for _ in range(min(count, self._plan.worker_max)):
                self._start_worker(shape)

    def _start_worker(self, shape: Shape) -> None:
        name = f"w{self._num_started}"
        self._num_started += 1
        self._workers[name] = _Worker(shape=shape)
        self._executor.start(name, shape)

    def _hand_out(self) -> None:
        holds = self._window.has_solo() and self._may_risk()
        while holds and self._window.has_solo():
            chosen = self._roster.choose_solo(self._window.peek_solo().model)
            if chosen is None:
                break
            self._submit(chosen, self._window.take_solo())
        while True:
            self._fill()
            backlog = self._window.backlog()
            hold_idle = holds and self._window.has_solo()
            choice = self._roster.choose(backlog, self._starving(backlog), hold_idle=hold_idle)
            if choice is None:
                return
            worker, model = choice
            # Those that still start will share what is left: the first of 16 got ten seconds twice, and ended last.
            cap = policy.unit_cost_max(max(self._left_tflop, 0.0), len(self._workers), self.rates.get(model))
            self._submit(worker, self._window.take(model, cap))

    def _may_risk(self) -> bool:
        num_ready = len(self._roster)
        return policy.may_risk(num_ready, len(self._workers) - num_ready, bool(self._window.backlog()))

    def _submit(self, worker: str, unit: Unit) -> None:
        state = self._workers[worker]
        state.units[unit.id] = unit
        state.model = unit.model
        self.num_in_flight += 1
        self._show(worker)
        self._handed += 1
        self._last_handed[unit.model] = self._handed
        self._left_tflop -= unit.cost_tflop
        self._executor.submit(worker, replace(unit, rate_tflop_per_s=self.rates.get(unit.model)))

    def _take_back(self, worker: str, unit: str) -> Unit:
        """Return a unit that ended in a worker that lives."""
        taken = self._workers[worker].units.pop(unit)
        self.num_in_flight -= 1
        self._show(worker)
        return taken

    def _show(self, name: str) -> None:
        """Tell the roster how a worker stands."""
        worker = self._workers[name]
        if not worker.ready or worker.draining:
            return
        self._roster.put(
            policy.WorkerView(
                id=name,
                models=self._models[worker.shape],
                model=worker.model,
                in_flight=len(worker.units),
                solo=any(unit.solo for unit in worker.units.values()),
            )
        )

    def _forget(self, name: str) -> _Worker:
        """Strike a worker off."""
        worker = self._workers.pop(name)
        self._roster.remove(name)
        self._draining.discard(name)
        self._num_ready[worker.shape] -= worker.ready
        self.num_in_flight -= len(worker.units)
        return worker

    def _starving(self, backlog: Mapping[str, Backlog]) -> frozenset[str]:
        return frozenset(
            model for model in backlog if self._handed - self._last_handed.get(model, 0) >= policy.STARVE_UNITS
        )

    def _handle(self, event: Event) -> None:
        if event.worker not in self._workers:
            return  # it was given up earlier in this round; what it had committed was recovered
        match event:
            case Ready():
                worker = self._workers[event.worker]
                worker.ready = True
                self._num_ready[worker.shape] += 1
                self._show(event.worker)
                self._first_ready = True
                self.facts[event.worker] = event.facts
            case Done():
                self._finish(self._take_back(event.worker, event.unit), event.receipt)
            case Faulted():
                self._handle_fault(event)
            case Died():
                self._lose(event.worker, event.kind, event.message, event.ids)
            case Pulse():
                self._handle_pulse(event)
            case Draining():
                self._workers[event.worker].draining = True
                self._draining.add(event.worker)
                self._roster.remove(event.worker)

    def _finish(self, unit: Unit, receipt: Receipt) -> None:
        self._machine_faults = 0
        self._load_faults.pop(unit.model, None)
        self._loaded.add(unit.model)
        self._measure(unit, receipt)
        self._on_receipt(unit, receipt)

    def _measure(self, unit: Unit, receipt: Receipt) -> None:
        """Correct the model's rate (TFLOP a second of one worker) by what this unit took; half of it is new."""
        if receipt.generate_s > 0 and receipt.rows_generated:
            share = receipt.rows_generated / unit.num_outputs
            rate = unit.cost_tflop * share / receipt.generate_s
            self.rates[unit.model] = 0.5 * (self.rates.get(unit.model, rate) + rate)

    def _handle_fault(self, event: Faulted) -> None:
        """A call ended with an error; the worker's process lives."""
        outcome = outcome_of(event.kind)
        message = f"worker {event.worker}: {event.kind}: {event.message}"
        if outcome.blame == "run":
            self._stop(MachineError(f"{message}\n{event.traceback}"))
        if event.unit is None:
            self._count_start_fault(f"{message}\n{event.traceback}")
            self._replace(event.worker)
        elif outcome.replace_worker:
            self._lose(event.worker, event.kind, event.message, unit=event.unit)
        elif outcome.blame == "run":
            self._take_back(event.worker, event.unit)
        elif outcome.blame == "model":
            unit = self._take_back(event.worker, event.unit)
            self._give_back(unit)
            self._blame_load(event.worker, unit.model, f"{event.message}\n{event.traceback}")
        else:
            self._give_back(self._take_back(event.worker, event.unit))
            self._count_machine_fault(message)

    def _handle_pulse(self, event: Pulse) -> None:
        """End a worker that is past a bound and did not heed it."""
        found = policy.overdue(event.running)
        units = self._workers[event.worker].units
        if found is None or found[1].unit not in units:
            return
        kind, place = found
        unit = units[place.unit]
        message = f"{place.phase} took longer than {place.bound_s:.0f} s"
        self._lose(event.worker, kind, message, frozenset(place.ids), unit=place.unit)
        if kind == "ModelLoadFailed":
            self._blame_load(None, unit.model, message)

    def _blame_load(self, worker: str | None, model: str, message: str) -> None:
        """Count a failed load: where the model loads elsewhere its worker is to blame, else in the end the model."""
        if model in self._loaded and worker is not None:
            self._count_machine_fault(f"worker {worker}: {message}")
            self._lose(worker, "Stuck", message)
            return
        if worker is not None:
            self._workers[worker].model = None
            self._show(worker)
        self._load_faults[model] = self._load_faults.get(model, 0) + 1
        if self._load_faults[model] >= policy.MODEL_LOADS_MAX:
            self._lose_model(model, ModelLoadFailed(f"model {model} does not load: {message}"))

    def _lose(
        self, name: str, kind: str, message: str, ids: frozenset[str] = frozenset(), *, unit: str | None = None
    ) -> None:
        """Settle the units of a worker whose process is gone or must go, and replace it.

        Args:
            name: The worker.
            kind: Key of the table of outcomes.
            message: For people.
            ids: Requests that were in its model, as far as that is known.
            unit: The unit that is to blame; None for every one it had been given.
        """
        worker = self._workers[name]
        self.worker_deaths += 1
        outcome = outcome_of(kind)
        self._count_machine_fault(f"worker {name}: {kind}: {message}")
        if not worker.ready and outcome.blame != "nobody":
            self._count_start_fault(f"worker {name} died while it started: {message}")
        for given in worker.units.values():
            receipt = self._plan.recover(given)
            if receipt is not None:
                self._finish(given, receipt)
            elif outcome.blame == "suspects" and unit in {None, given.id} and given.model not in self.lost_models:
                self._suspect(given, name, outcome, message, ids)
            else:
                self._give_back(given)
        self._replace(name)

    def _suspect(self, unit: Unit, worker: str, outcome: Outcome, message: str, ids: frozenset[str]) -> None:
        """Run the requests of a unit whose process ended alone: those in the model singly, the others in halves."""
        self._left_tflop += unit.cost_tflop
        self.retries += 1
        is_alone = unit.solo and len(unit.requests) == 1
        if is_alone:
            tried_max = policy.SOLO_OVERDUE_MAX if outcome.then == "alone" else policy.SOLO_DEATHS_MAX
            [(request,)] = self._plan.bisect(unit)
            if request.attempt >= tried_max:
                self._left_tflop -= unit.cost_tflop
                self._machine_faults = 0
                self._on_set_aside(unit, worker, outcome, message)
            else:
                self._window.add_solo((request,), unit.batch_size)
            return
        was_in_model = not ids.isdisjoint(request.id for request in unit.requests)
        parts = policy.suspects(unit, ids) if was_in_model or not unit.solo else self._plan.bisect(unit)
        for requests in parts:
            self._window.add_solo(requests, unit.batch_size)

    def _give_back(self, unit: Unit) -> None:
        self.retries += 1
        if unit.model in self.lost_models:
            return
        self._left_tflop += unit.cost_tflop
        if unit.solo:
            self._window.add_solo(unit.requests, unit.batch_size)
        else:
            for request in unit.requests:
                self._window.add(request)

    def _replace(self, name: str) -> None:
        """End a worker and start another in its slot."""
        worker = self._forget(name)
        self._executor.stop(name)
        if not self._is_stopping():
            self._start_worker(worker.shape)

    def _release_drained(self) -> None:
        for name in [name for name in sorted(self._draining) if not self._workers[name].units]:
            self._replace(name)

    def _count_start_fault(self, message: str) -> None:
        self._start_faults += 1
        if not self._first_ready and self._start_faults >= policy.START_FAULTS_MAX:
            self._stop(MachineError(message))

    def _count_machine_fault(self, message: str) -> None:
        self._machine_faults += 1
        if self._machine_faults >= policy.MACHINE_FAULTS_MAX:
            self._stop(MachineError(f"{self._machine_faults} faults without one unit done; the last: {message}"))

    def _check_start(self) -> None:
        """Give up a shape of which no worker was ready for `start_timeout_s`, at first or since the last one died."""
        now_s = time.monotonic()
        limit_s = self._plan.start_timeout_s
        for shape, models in self._models.items():
            if self._num_ready[shape] or self._is_stopping():
                self._alone_since_s[shape] = now_s
                continue
            names = [name for name, worker in self._workers.items() if worker.shape == shape]
            if not names:
                self._alone_since_s[shape] = now_s
            elif now_s - self._alone_since_s[shape] > limit_s:
                text = f"no worker became ready within limits.start_timeout_s = {limit_s:g}; "
                text += f"each asks for {shape.num_gpus} GPU and {shape.num_cpus} CPU"
                for name in names:
                    self._forget(name)
                    self._executor.stop(name)
                for model in models:
                    self._lose_model(model, WorkersUnavailable(f"model {model}: {text}"))

    def _lose_model(self, model: str, error: SdbatchError) -> None:
        """Leave what waits for a model to a later run."""
        self.lost_models[model] = error
        self._left_tflop -= self._window.drop(model)

    def _stop(self, failure: SdbatchError) -> None:
        """Hand out nothing more; what is in flight may end."""
        self.failure = self.failure or failure

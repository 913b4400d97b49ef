"""The driver's loop: keep the window full and every worker busy, turn events into decisions, remember nothing else.

    Supply (work) + Fleet (workers) --> choose() --> Executor --> events --> receipts, faults, suspects

What is in flight lives here, in memory; all else is in the campaign. Kill it at any moment and run again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from sdbatch.dispatch import policy
from sdbatch.dispatch.backoff import MOST_WAIT_S, Backoff
from sdbatch.dispatch.blame import FaultCounts, suspects_of
from sdbatch.dispatch.executor import Died, Draining, Event, Executor, Faulted, Placed, Pulse, Ready, Shape, UnitDone
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.likeness import Likeness, refusal
from sdbatch.dispatch.plan import Plan
from sdbatch.dispatch.spending_bound import SpendingBound
from sdbatch.dispatch.supply import Supply, WindowLike
from sdbatch.dispatch.waits import Wait
from sdbatch.errors import MachineError, SdbatchError, WorkersUnavailable
from sdbatch.outcomes import OUTCOMES, Next, Outcome, outcome_of
from sdbatch.types import Receipt, Unit

__all__ = ["Dispatcher", "Plan"]

LOG = logging.getLogger("sdbatch.dispatch")
TICK_S = 0.5
STOP_WAIT_S = 60.0
"""Longest wait for units in flight once a run stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """The loss of a worker.

    Attributes:
        worker: Its name.
        outcome: What follows.
        message: What a person reads.
        ids: Requests that were in its model, as far as that is known.
    """

    worker: str
    outcome: Outcome
    message: str
    ids: frozenset[str]


class Dispatcher:
    """Works off a plan on an executor.

    Args:
        executor: Runs the workers.
        window: Groups requests into units.
        plan: What is to be done.
        on_receipt: Called with each unit and its receipt, in order of arrival.
        on_set_aside: Called with the unit of a request that ended its process, or missed its deadline, while it ran
            alone, with the worker, the outcome and a message.
        on_tick: Called at least every `TICK_S` seconds.
        should_stop: Asked between rounds; once it says so, nothing more is handed out.
        clock: Seconds that only grow.
        fleet: The fleet of that executor and of the plan's shapes, where workers were started ahead.

    Attributes:
        fleet: Its workers; how long they have held their slots, and what they are.
        failure: Why the run stops early; None while it does not.
        worker_deaths: Workers that were lost.
        warnings: In what workers differ from each other or from those of earlier runs, and what they note themselves.
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
        clock: Callable[[], float] = time.monotonic,
        fleet: Fleet | None = None,
    ) -> None:
        self._executor = executor
        self._plan = plan
        self._on_receipt = on_receipt
        self._on_set_aside = on_set_aside
        self._on_tick = on_tick
        self._should_stop = should_stop
        self._clock = clock
        self.fleet = self._fleet = Fleet(executor, plan.shapes, clock) if fleet is None else fleet
        self._supply = Supply(window, plan.requests, plan.cost_tflop)
        self._spending = SpendingBound(plan.allowance, self._fleet, self._supply, plan.shapes)
        self._faults = FaultCounts()
        self._backoff = Backoff()
        self._last_fault = ""
        self._hands_out_from_s = clock()
        self._likeness = Likeness(plan.standards)
        self.warnings: list[str] = []
        self._last_start_fault = ""
        self._sized: set[Shape] = set()
        self._stopping_since_s: float | None = None
        self.failure: SdbatchError | None = None
        self.worker_deaths = 0

    @property
    def num_workers(self) -> int:
        """Workers that are ready."""
        return self._fleet.num_ready

    @property
    def num_in_flight(self) -> int:
        """Units handed out that have not ended."""
        return self._fleet.num_in_flight

    @property
    def waits_for(self) -> dict[str, Wait]:
        """What workers that are not ready wait for, by cause; asks the cluster."""
        starting = self._fleet.starting_shapes
        waits = {
            f"start {shape}": Wait(text=self._plan.shortage(shape), count=starting.count(shape))
            for shape in sorted(set(starting), key=str)
        }
        if number := len(self._backoff.waiting):
            what = "a lost worker is" if number == 1 else f"{number} lost workers are"
            text = (
                f"{what} started again after a pause of up to {MOST_WAIT_S:.0f} s; the last fault: {self._last_fault}"
            )
            # Of a fault's message the kind alone stays the same from one worker to the next.
            waits["lost " + self._last_fault.partition(": ")[2].partition(": ")[0]] = Wait(text=text, count=number)
        return waits

    @property
    def retries(self) -> int:
        """Units handed out again."""
        return self._supply.retries

    @property
    def rates(self) -> Mapping[str, float]:
        """Measured TFLOP a second of one worker, by model."""
        return self._supply.rates

    @property
    def refused_gpu_s(self) -> float | None:
        """What the unit was predicted to take for which nothing was left to spend; None while there is none."""
        return self._spending.refused_gpu_s

    @property
    def facts(self) -> Mapping[str, Mapping[str, str]]:
        """Facts about each worker's machine."""
        return self._fleet.facts

    @property
    def lost_models(self) -> Mapping[str, SdbatchError]:
        """Models whose rows are left to a later run, each with the reason."""
        return self._supply.lost_models

    def run(self) -> None:
        """Work until all is done, `should_stop` says so, or a fault stops the run.

        Raises:
            MachineError: When the run cannot go on; what was committed stays.
        """
        self._supply.fill()
        self._spending.look_ahead()
        if self.refused_gpu_s is None:
            self._start_workers()
        while self._is_unfinished():
            if not self._is_stopping():
                self._hand_out()
            for event in self._executor.wait(TICK_S):
                self._handle(event)
            for name in self._fleet.drained():
                self._replace(name)
            self._start_due()
            self._give_up_shapes()
            self._on_tick()
        if self.failure:
            raise self.failure
        if self.lost_models:
            first, *others = self.lost_models.values()
            raise type(first)("\n".join(str(error) for error in (first, *others)))

    def _is_stopping(self) -> bool:
        return self.failure is not None or self.refused_gpu_s is not None or self._should_stop()

    def _is_unfinished(self) -> bool:
        if self._is_stopping():
            self._stopping_since_s = self._stopping_since_s or self._clock()
            return self.num_in_flight > 0 and self._clock() - self._stopping_since_s < STOP_WAIT_S
        return self.num_in_flight > 0 or not self._supply.is_empty

    def _stop(self, failure: SdbatchError | None) -> None:
        """Hand out nothing more after a failure; what is in flight may end."""
        self.failure = self.failure or failure

    # --- handing out ------------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        """Start the workers that the work is for, and end those started ahead that it is not for."""
        backlog = self._supply.window.backlog()
        for shape, models in self._fleet.models.items():
            outputs = sum(work.outputs for name, work in backlog.items() if name in models)
            count = self._plan.worker_count or self._executor.capacity(shape)
            if self._supply.is_exhausted:  # no more workers than there are outputs to make
                count = min(count, outputs)
            count = self._spending.num_workers(shape, backlog.keys() & models, min(count, self._plan.worker_max))
            there = self._fleet.names_of(shape)
            for name in there[count:]:
                self._fleet.end(name)
            for _ in range(count - len(there)):
                self._fleet.start(shape)

    def _hand_out(self) -> None:
        self._spending.look_ahead()
        if self._clock() < self._hands_out_from_s or self.refused_gpu_s is not None:
            return
        window, roster = self._supply.window, self._fleet.roster
        may_risk = window.has_solo() and self._may_risk()
        while may_risk and window.has_solo():
            worker = roster.choose_solo(window.peek_solo().model)
            if worker is None or not self._spending.may_take_solo(worker):
                break
            self._submit(worker, self._supply.take_solo())
        while True:
            self._supply.fill()
            backlog = window.backlog()
            choice = roster.choose(backlog, self._supply.starving(backlog), hold_idle=may_risk and window.has_solo())
            if choice is None:
                return
            worker, model = choice
            if not self._spending.may_take(worker, model):
                return
            most_tflop = self._spending.most_tflop(worker, model)
            self._submit(worker, self._supply.take(model, num_workers=self._num_slots, most_tflop=most_tflop))

    @property
    def _num_slots(self) -> int:
        """Workers that are there or to be started."""
        return len(self._fleet) + len(self._backoff.waiting)

    def _may_risk(self) -> bool:
        num_ready = len(self._fleet.roster)
        return policy.may_risk(num_ready, self._num_slots - num_ready, bool(self._supply.window.backlog()))

    def _submit(self, worker: str, unit: Unit) -> None:
        self._fleet.give(worker, unit, self._spending.predicted_s(worker, unit))
        self._executor.submit(worker, replace(unit, rate_tflop_per_s=self.rates.get(unit.model)))

    # --- events -----------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if event.worker not in self._fleet:
            return  # it was given up earlier in this round; what it had committed was recovered
        match event:
            case Placed():
                self._fleet.place(event.worker)
            case Ready():
                self._admit(event)
            case UnitDone():
                self._finish(self._fleet.take_back(event.worker, event.unit), event.receipt)
            case Faulted():
                self._handle_fault(event)
            case Died():
                self._lose(event.worker, event.kind, event.message, event.ids)
            case Pulse():
                self._handle_pulse(event)
            case Draining():
                self._fleet.drain(event.worker)

    def _admit(self, event: Ready) -> None:
        """Let a worker be given units, unless it differs from the others and the plan refuses that."""
        models = self._fleet.models[self._fleet[event.worker].shape]
        differences = self._likeness.compare(event.worker, models, event.facts)
        self._fleet.set_ready(event)
        if differences and self._plan.refuse_unlike:
            self._stop(refusal(differences))  # nothing is handed out after a failure
            return
        note = event.facts.get("note", "")
        if note and note not in self.warnings:
            LOG.warning("worker notes", extra={"worker": event.worker, "note": note})
            self.warnings.append(note)
        for difference in differences:
            LOG.warning("worker differs", extra={"worker": event.worker, "difference": str(difference)})
            self.warnings.append(str(difference))

    def _finish(self, unit: Unit, receipt: Receipt) -> None:
        self._faults.clear(unit.model)
        self._go_on()
        self._supply.measure(unit, receipt)
        self._on_receipt(unit, receipt)

    def _handle_fault(self, event: Faulted) -> None:
        """Settle a call that ended with an error in a worker whose process lives."""
        outcome = outcome_of(event.kind)
        # A traceback helps only where nobody foresaw the error.
        text = f"worker {event.worker}: {event.kind}: {event.message}"
        text += f"\n{event.traceback}" if outcome is OUTCOMES["Bug"] or event.kind == "ModelLoadFailed" else ""
        if outcome.then == "stop":
            self._stop(MachineError(text))
        if event.unit is None:
            self._last_start_fault = text
            if self._fleet.was_ready:
                self._count_machine_fault(text)
            self._stop(self._faults.add_start_fault(text, was_ready=self._fleet.was_ready))
            self._replace(event.worker, waits=self._fleet.was_ready)
        elif outcome.replace_worker:
            self._lose(event.worker, event.kind, event.message, unit_id=event.unit)
        else:
            unit = self._fleet.take_back(event.worker, event.unit)
            self.FAULT_HANDLERS[outcome.then](self, event, unit)

    def _handle_pulse(self, event: Pulse) -> None:
        """End a worker that is past a bound and did not heed it."""
        overdue = policy.overdue(event.running)
        units = self._fleet[event.worker].units
        if overdue is None or overdue[1].unit not in units:
            return
        kind, place = overdue
        unit = units[place.unit]
        message = f"{place.phase} took longer than {place.bound_s:.0f} s"
        self._lose(event.worker, kind, message, frozenset(place.ids), unit_id=place.unit)
        if kind == "ModelLoadFailed":
            self._count_load_fault(unit.model, message)

    def _lose(
        self, name: str, kind: str, message: str, ids: frozenset[str] = frozenset(), *, unit_id: str | None = None
    ) -> None:
        """Settle the units of a worker whose process is gone or must go, and replace it.

        Args:
            name: The worker.
            kind: Key of the table of outcomes.
            message: What a person reads.
            ids: Requests that were in its model, as far as that is known.
            unit_id: The unit that is to blame; None for every one it had been given.
        """
        worker, outcome = self._fleet[name], outcome_of(kind)
        self.worker_deaths += 1
        self._count_machine_fault(f"worker {name}: {kind}: {message}")
        if not worker.is_ready and outcome.then != "again":
            text = f"worker {name} died while it started: {message}"
            self._stop(self._faults.add_start_fault(text, was_ready=self._fleet.was_ready))
        loss = _Loss(worker=name, outcome=outcome, message=message, ids=ids)
        for unit in worker.units.values():
            receipt = self._plan.recover(unit)
            if receipt is not None:
                self._finish(unit, receipt)
            elif unit_id in {None, unit.id} and unit.model not in self.lost_models:
                self.LOSS_HANDLERS[outcome.then](self, loss, unit)
            else:
                self._supply.put_back(unit)
        # A node that goes takes no other worker with it; a start that fails before any went well ends the run soon.
        waits = kind not in {"NodeLost", "Preempted"} and (self._fleet.was_ready or outcome.then == "again")
        self._replace(name, waits=waits)

    # --- what follows: see FAULT_HANDLERS and LOSS_HANDLERS -----------------------------------------------------------

    def _leave(self, event: Faulted, unit: Unit) -> None:
        """Leave a unit to the next run: this one ends."""

    def _try_again(self, event: Faulted, unit: Unit) -> None:
        self._supply.put_back(unit)
        message = f"worker {event.worker}: {event.kind}: {event.message}"
        self._count_machine_fault(message, outcome_of(event.kind).in_a_row_max)
        self._hands_out_from_s = self._backoff.until_s

    def _blame_load(self, event: Faulted, unit: Unit) -> None:
        """Blame the worker where its model loads elsewhere, and in the end the model where it does not."""
        self._supply.put_back(unit)
        message = f"{event.message}\n{event.traceback}"
        if self._faults.is_loadable(unit.model):
            self._lose(event.worker, "Stuck", message)
        else:
            self._fleet.unload(event.worker)
            self._count_load_fault(unit.model, message)

    def _put_back(self, loss: _Loss, unit: Unit) -> None:
        self._supply.put_back(unit)

    def _suspect(self, loss: _Loss, unit: Unit) -> None:
        """Run the requests of a unit whose process ended alone, or set aside the one that is to blame."""
        parts = suspects_of(unit, loss.ids, self._plan.bisect, loss.outcome.solo_failures_max)
        if parts is None:
            self._faults.clear_machine()
            self._go_on()
            self._on_set_aside(unit, loss.worker, loss.outcome, loss.message)
        else:
            self._supply.put_suspects(unit, parts)

    FAULT_HANDLERS: ClassVar[Mapping[Next, Callable[[Dispatcher, Faulted, Unit], None]]] = {
        "again": _try_again,
        "end model": _blame_load,
        "stop": _leave,
    }
    """Handlers of a unit whose call ended with an error while its worker lives on, by the outcome's `then`."""

    LOSS_HANDLERS: ClassVar[Mapping[Next, Callable[[Dispatcher, _Loss, Unit], None]]] = {
        "again": _put_back,
        "bisect": _suspect,
        "end model": _put_back,
    }
    """Handlers of a unit that is to blame when its worker was lost, by the outcome's `then`."""

    # --- workers and models that are given up -----------------------------------------------------------------------

    def _count_load_fault(self, model: str, message: str) -> None:
        error = self._faults.add_load_fault(model, message)
        if error is not None:
            self._supply.lose_model(model, error)

    def _count_machine_fault(self, message: str, in_a_row_max: int | None = None) -> None:
        """Count a fault that blames no row; those of one wait count as one, and so many in a row end the run."""
        self._last_fault = message.partition("\n")[0]
        if self._backoff.add(self._clock()):
            self._stop(self._faults.add_machine_fault(message, in_a_row_max))

    def _go_on(self) -> None:
        """Wait for nothing more: a unit ended."""
        self._backoff.clear()
        self._hands_out_from_s = self._clock()

    def _replace(self, name: str, *, waits: bool = False) -> None:
        """End a worker and start another in its slot, at once or once the present wait is over."""
        worker = self._fleet.end(name)
        if self._is_stopping() or self._spending.is_short:
            return
        if waits:
            self._backoff.waiting.append(worker.shape)
        else:
            self._fleet.start(worker.shape)

    def _start_due(self) -> None:
        for shape in self._backoff.due(self._clock()):
            if self._is_stopping() or self._spending.is_short:
                continue
            if not self._fleet.models[shape] <= self.lost_models.keys():
                self._fleet.start(shape)

    def _shapes_too_large(self) -> list[Shape]:
        """Return the shapes of which workers are asked for that the cluster can never hold; each is asked once."""
        asked = [shape for shape in self._fleet.models if shape not in self._sized and self._fleet.names_of(shape)]
        self._sized.update(asked)
        return [shape for shape in asked if not self._plan.can_hold(shape)]

    def _give_up_shapes(self) -> None:
        """Give up a shape that can never be held, or of which no worker was ready for `start_timeout_s`.

        That time counts from the beginning, or from when the last worker died.
        """
        limit_s = self._plan.start_timeout_s
        overdue = self._fleet.overdue_shapes(limit_s, is_stopping=self._is_stopping())
        too_large = self._shapes_too_large()
        for shape in dict.fromkeys([*too_large, *overdue]):
            shortage = self._plan.shortage(shape)
            if shape in too_large:
                text = f"no worker fits this machine; {shortage}; ask for less (num_gpus: 0 takes CPUs alone), or name "
                text += "a larger cluster by RAY_ADDRESS"
            else:
                text = f"no worker became ready within limits.start_timeout_s = {limit_s:g}; {shortage}"
            text += f"; the last that did not start: {self._last_start_fault}" if self._last_start_fault else ""
            for name in self._fleet.names_of(shape):
                self._fleet.end(name)
            for model in self._fleet.models[shape]:
                self._supply.lose_model(model, WorkersUnavailable(f"model {model}: {text}"))

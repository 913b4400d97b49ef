"""Keeps the workers of a run: which exist, which are ready, and which units each was given.

    start, ready, drain, stop --> Fleet --> Roster (what the policy chooses from)

The fleet decides nothing: the dispatcher tells it which worker to start and to end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sdbatch.dispatch import policy
from sdbatch.dispatch.executor import Executor, Ready, Shape
from sdbatch.dispatch.slots import SlotMeter, SlotSeconds, gpus_of
from sdbatch.types import Unit


@dataclass(slots=True)
class FleetWorker:
    """One worker that was started and not yet ended.

    Attributes:
        shape: Shape of its slot.
        placed_s: When it came to hold its slot, by the fleet's clock; None before.
        is_ahead: Whether it was started while nobody looked at its events, so that how long it started is unknown.
        is_ready: Whether it may be given units.
        is_draining: Whether it must be given no more.
        model: Model of the last unit it was given; None when it holds none.
        units: Units it was given and has not ended, by id.
        predicted_s: Seconds that each of them was predicted to take, by id.
        since_s: When the first of them began, as far as that is known here.
    """

    shape: Shape
    placed_s: float | None = None
    is_ahead: bool = False
    is_ready: bool = False
    is_draining: bool = False
    model: str | None = None
    units: dict[str, Unit] = field(default_factory=dict)
    predicted_s: dict[str, float] = field(default_factory=dict)
    since_s: float = 0.0

    def left_gpu_s(self, now_s: float) -> float:
        """Return what its units are still predicted to take, in seconds times GPUs."""
        predicted = list(self.predicted_s.values())
        left_s = max(sum(predicted) - (now_s - self.since_s), sum(predicted[1:])) if predicted else 0.0
        return left_s * gpus_of(self.shape)


class Fleet:
    """The workers of a run.

    Args:
        executor: Runs them.
        shapes: Slot shape of each model.
        clock: Seconds that only grow.

    Attributes:
        roster: The ready workers, as the policy sees them.
        models: Models of each slot shape.
        facts: Facts about each worker's machine.
        num_in_flight: Units given and not ended, over all workers.
        was_ready: Whether any worker was ever ready.
        starts_s: Seconds from slot to readiness of each worker that came to be ready; without those started ahead.
    """

    def __init__(
        self, executor: Executor, shapes: Mapping[str, Shape], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._executor = executor
        self._clock = clock
        self.models: dict[Shape, frozenset[str]] = {
            shape: frozenset(name for name, other in shapes.items() if other == shape) for shape in set(shapes.values())
        }
        self.roster = policy.Roster()
        self.facts: dict[str, Mapping[str, str]] = {}
        self.num_in_flight = 0
        self.was_ready = False
        self._workers: dict[str, FleetWorker] = {}
        self._num_ready: Counter[Shape] = Counter()
        self._draining: set[str] = set()
        self._num_started = 0
        # A clock that only grows, read as time of day: a jump of the machine's clock moves no budget.
        self._day_offset_s = time.time() - clock()
        self._meter = SlotMeter(self._now_s())
        self.starts_s: list[float] = []
        self._none_ready_since_s = dict.fromkeys(self.models, clock())

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, name: object) -> bool:
        return name in self._workers

    def __getitem__(self, name: str) -> FleetWorker:
        return self._workers[name]

    @property
    def num_ready(self) -> int:
        """Workers that are ready, draining ones too."""
        return self._num_ready.total()

    @property
    def starting_shapes(self) -> list[Shape]:
        """The shape of each worker that is not ready yet."""
        return [worker.shape for worker in self._workers.values() if not worker.is_ready]

    def _now_s(self) -> float:
        return self._clock() + self._day_offset_s

    def slot_seconds(self) -> SlotSeconds:
        """Return how long workers have held their slots; another thread may ask."""
        return self._meter.seconds(self._now_s())

    def left_gpu_s(self) -> float:
        """Return what all units in flight are still predicted to take, in seconds times GPUs."""
        now_s = self._clock()
        return sum(worker.left_gpu_s(now_s) for worker in self._workers.values() if worker.units)

    def idle(self) -> list[str]:
        """Return the workers without a unit, starting ones too."""
        return [name for name, worker in self._workers.items() if not worker.units]

    def place(self, name: str) -> None:
        """Note that a worker holds its slot."""
        worker = self._workers[name]
        if worker.placed_s is None:
            worker.placed_s = self._clock()
            self._meter.place(worker.shape, self._now_s())

    def start(self, shape: Shape) -> str:
        """Ask for one more worker; return its name."""
        name = f"w{self._num_started}"
        self._num_started += 1
        self._workers[name] = FleetWorker(shape=shape)
        self._executor.start(name, shape)
        return name

    def start_ahead(self, shape: Shape) -> None:
        """Ask for a worker whose slot is free, before anybody looks at events: its slot counts from now on."""
        name = self.start(shape)
        self._workers[name].is_ahead = True
        self.place(name)

    def set_ready(self, event: Ready) -> None:
        """Let a worker be given units."""
        self.place(event.worker)  # where an executor knows of no earlier moment
        worker = self._workers[event.worker]
        worker.is_ready = self.was_ready = True
        if not worker.is_ahead:
            self.starts_s.append(self._clock() - (worker.placed_s or 0.0))
        self._num_ready[worker.shape] += 1
        self.facts[event.worker] = event.facts
        self._update_roster(event.worker)

    def drain(self, name: str) -> None:
        """Give a worker no more; it is replaced once it has ended what it was given."""
        self._workers[name].is_draining = True
        self._draining.add(name)
        self.roster.remove(name)

    def drained(self) -> list[str]:
        """Return the draining workers that have ended all they were given."""
        return [name for name in sorted(self._draining) if not self._workers[name].units]

    def give(self, name: str, unit: Unit, predicted_s: float = 0.0) -> None:
        """Note that a worker was given a unit, and how long it is predicted to take."""
        worker = self._workers[name]
        if not worker.units:
            worker.since_s = self._clock()
        worker.predicted_s[unit.id] = predicted_s
        worker.units[unit.id] = unit
        worker.model = unit.model
        self.num_in_flight += 1
        self._update_roster(name)

    def take_back(self, name: str, unit_id: str) -> Unit:
        """Return a unit that ended in a worker that lives."""
        worker = self._workers[name]
        unit = worker.units.pop(unit_id)
        worker.predicted_s.pop(unit_id, None)
        worker.since_s = self._clock()
        self.num_in_flight -= 1
        self._update_roster(name)
        return unit

    def unload(self, name: str) -> None:
        """Note that a worker holds no model."""
        self._workers[name].model = None
        self._update_roster(name)

    def end(self, name: str) -> FleetWorker:
        """End a worker and strike it off; return what it was."""
        worker = self._workers.pop(name)
        self.roster.remove(name)
        self._draining.discard(name)
        self._num_ready[worker.shape] -= worker.is_ready
        self.num_in_flight -= len(worker.units)
        self._executor.stop(name)
        if worker.placed_s is not None:
            self._meter.end(worker.shape, self._now_s())
        return worker

    def end_slots(self) -> None:
        """Count no further time: whatever ran the workers is closed."""
        for worker in self._workers.values():
            if worker.placed_s is not None:
                worker.placed_s = None
                self._meter.end(worker.shape, self._now_s())

    def overdue_shapes(self, start_timeout_s: float, *, is_stopping: bool) -> list[Shape]:
        """Return the shapes of which workers were asked for and none was ready for so long."""
        now_s = self._clock()
        overdue = []
        for shape in self.models:
            if self._num_ready[shape] or is_stopping or not self.names_of(shape):
                self._none_ready_since_s[shape] = now_s
            elif now_s - self._none_ready_since_s[shape] > start_timeout_s:
                overdue.append(shape)
        return overdue

    def names_of(self, shape: Shape) -> list[str]:
        """Return the workers of a shape."""
        return [name for name, worker in self._workers.items() if worker.shape == shape]

    def _update_roster(self, name: str) -> None:
        worker = self._workers[name]
        if not worker.is_ready or worker.is_draining:
            return
        self.roster.put(
            policy.WorkerView(
                id=name,
                models=self.models[worker.shape],
                model=worker.model,
                in_flight=len(worker.units),
                solo=any(unit.solo for unit in worker.units.values()),
            )
        )

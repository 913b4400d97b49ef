"""Runs one worker in this process: for breakpoints, unit tests and machines without Ray."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from sdbatch.dispatch.executor import (
    ErrorRecord,
    Event,
    Faulted,
    Placed,
    Ready,
    Shape,
    UnitDone,
    WorkerLike,
    build_worker,
    guarded,
)
from sdbatch.types import Observation, Receipt, Unit, WorkerSpec


class InProcessExecutor:
    """Runs units one after the other inside `wait`.

    Args:
        spec: What the worker is built from.
        worker_path: Dotted path of the worker's class.
    """

    def __init__(self, spec: WorkerSpec, worker_path: str) -> None:
        self._spec = spec
        self._path = worker_path
        self._workers: dict[str, WorkerLike] = {}
        self._calls: deque[tuple[str, Unit | None]] = deque()
        self._placed: list[Event] = []

    def capacity(self, shape: Shape) -> int:
        """See `Executor`: one process, one worker."""
        return 1

    def settled(self, shape: Shape) -> Shape:
        """See `Slots`: what this machine has is used."""
        return shape

    def shortage(self, shape: Shape) -> str:
        """See `Slots`: nothing is reserved."""
        return "the worker of this process does not start"

    def can_hold(self, shape: Shape) -> bool:
        """See `Slots`: nothing is reserved."""
        return True

    def start(self, worker: str, shape: Shape) -> None:
        """See `Executor`."""
        self._workers[worker] = build_worker(self._path, worker, self._spec)
        self._calls.append((worker, None))
        self._placed.append(Placed(worker=worker))

    def submit(self, worker: str, unit: Unit) -> None:
        """See `Executor`."""
        self._calls.append((worker, unit))

    def wait(self, timeout_s: float) -> list[Event]:
        """See `Executor`. Runs the oldest call; first it says which workers hold their slots."""
        if self._placed:
            placed, self._placed = self._placed, []
            return placed
        if not self._calls:
            time.sleep(timeout_s)
            return []
        name, unit = self._calls.popleft()
        worker = self._workers.get(name)
        if worker is None:
            return []
        result = guarded(worker.start if unit is None else partial(worker.run_unit, unit))
        return [event_of(name, unit, result)]

    def observe(self, observation: Observation) -> None:
        """See `Executor`: nobody watches one process from outside."""

    def stop(self, worker: str) -> None:
        """See `Executor`."""
        self._workers.pop(worker, None)

    def close(self) -> None:
        """See `Executor`."""
        self._workers.clear()
        self._calls.clear()


def event_of(worker: str, unit: Unit | None, result: object) -> Event:
    """Turn what a worker's call returned into an event."""
    unit_id = unit.id if unit else None
    if isinstance(result, ErrorRecord):
        return Faulted(
            worker=worker, unit=unit_id, kind=result.kind, message=result.message, traceback=result.traceback
        )
    if isinstance(result, Receipt):
        return UnitDone(worker=worker, unit=result.unit, receipt=result)
    assert isinstance(result, dict), f"a worker's start returned {type(result).__name__}"
    return Ready(worker=worker, facts=result)

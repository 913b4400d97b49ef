"""Decides whom to blame: counts faults that blame no row, and names the suspects of a crash.

    fault --> FaultCounts --> an error that ends the run or a model, or None      suspects_of() --> parts to run alone

Pure: no clock and no executor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sdbatch.dispatch import policy
from sdbatch.errors import MachineError, ModelLoadFailed
from sdbatch.types import Request, Unit


class FaultCounts:
    """Counts the faults in a row that blame no row; each `add_` method returns an error once its bound is reached."""

    def __init__(self) -> None:
        self._machine_faults = 0
        self._start_faults = 0
        self._load_faults: Counter[str] = Counter()
        self._loaded_models: set[str] = set()

    def clear(self, model: str) -> None:
        """Forget faults in a row: a unit of this model ended well."""
        self._machine_faults = 0
        self._load_faults.pop(model, None)
        self._loaded_models.add(model)

    def clear_machine(self) -> None:
        """Forget machine faults in a row: a request is to blame for them."""
        self._machine_faults = 0

    def is_loadable(self, model: str) -> bool:
        """Whether some worker loaded this model in this run."""
        return model in self._loaded_models

    def add_machine_fault(self, message: str, in_a_row_max: int | None = None) -> MachineError | None:
        """Count a fault that blames no row; as many in a row end the run, by default `MACHINE_FAULTS_MAX`."""
        self._machine_faults += 1
        if self._machine_faults < (in_a_row_max or policy.MACHINE_FAULTS_MAX):
            return None
        return MachineError(f"{self._machine_faults} faults without one unit done; the last: {message}")

    def add_start_fault(self, message: str, *, was_ready: bool) -> MachineError | None:
        """Count a worker that did not start; it matters until one was ready."""
        self._start_faults += 1
        if was_ready or self._start_faults < policy.START_FAULTS_MAX:
            return None
        return MachineError(message)

    def add_load_fault(self, model: str, message: str) -> ModelLoadFailed | None:
        """Count a failed load of a model."""
        self._load_faults[model] += 1
        if self._load_faults[model] < policy.MODEL_LOADS_MAX:
            return None
        return ModelLoadFailed(f"model {model} does not load: {message}")


def suspects_of(
    unit: Unit,
    ids: frozenset[str],
    bisect: Callable[[Unit], list[tuple[Request, ...]]],
    solo_failures_max: int,
) -> list[tuple[Request, ...]] | None:
    """Return the parts in which a unit's requests run alone next; None when its one request is to blame.

    Requests that were in the model run singly, the others together, in halves from the second time on.

    Args:
        unit: A unit whose worker's process ended.
        ids: Requests that were in the model, as far as that is known.
        bisect: Splits a unit's requests, each with one more attempt.
        solo_failures_max: See `Outcome`.
    """
    if unit.solo and len(unit.requests) == 1:
        [(request,)] = bisect(unit)
        return None if request.attempt >= solo_failures_max else [(request,)]
    was_in_model = not ids.isdisjoint(request.id for request in unit.requests)
    return policy.suspects(unit, ids) if was_in_model or not unit.solo else bisect(unit)

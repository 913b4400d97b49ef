"""Decides which worker gets which model's work next, how large a unit is, and when a worker is given up.

    Roster of workers + backlog --> choose() --> (worker, model)
    answers to a ping           --> overdue() --> kind of outcome

Pure: no clock, no Ray, no storage, so every rule is tested in milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdbatch.types import PendingWork, Request, Running, Unit

IN_FLIGHT_MAX = 2
"""Units per worker: one in the model, one that fetches or encodes. More only enlarges what a kill costs."""

UNIT_S = 10.0
"""A unit aims at so many seconds in the model: under the notice of a spot node (30 s), and far over its own cost."""

STARVE_UNITS = 64
"""A model that waited while so many units were handed out is served before models that workers hold."""

MACHINE_FAULTS_MAX = 20
"""After so many faults in a row that blame no row, without a receipt between them, the run stops."""

MODEL_LOADS_MAX = 2
"""After so many failed loads of one model in a row, its rows are left to a later run."""

ABORT_GRACE_S = 5.0
"""Seconds a call past its deadline has to heed it before its process is ended: mostly one denoising step."""

START_FAULTS_MAX = 3
"""After so many failed starts before any worker is ready, the run stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker as the policy sees it.

    Attributes:
        id: Name.
        models: Models its slot shape may hold.
        model: Model of the last unit it was given; None when it holds none.
        in_flight: Units it was given that have not ended.
        solo: Whether it runs suspects, and must be given nothing beside them.
    """

    id: str
    models: frozenset[str]
    model: str | None
    in_flight: int
    solo: bool


class Roster:
    """The workers that may be given units, sorted so that a choice costs as much as there are models, not workers.

    Workers in the same state (units in flight, model, models their slot may hold) wait in one line, sorted by name.
    """

    def __init__(self) -> None:
        self._views: dict[str, WorkerView] = {}
        self._lines: dict[_Standing, list[str]] = {}
        self._serving: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._views)

    def put(self, view: WorkerView) -> None:
        """Add a worker, or replace what is known of it."""
        self.remove(view.id)
        self._views[view.id] = view
        insort(self._lines.setdefault(_standing(view), []), view.id)
        self._serving[view.model] += 1

    def remove(self, worker: str) -> None:
        """Forget a worker; nothing happens when it is not there."""
        view = self._views.pop(worker, None)
        if view is None:
            return
        line = self._lines[_standing(view)]
        del line[bisect_left(line, worker)]
        if not line:
            del self._lines[_standing(view)]
        self._serving[view.model] -= 1

    def choose(
        self,
        backlog: Mapping[str, PendingWork],
        starving: frozenset[str] = frozenset(),
        *,
        hold_idle: bool = False,
    ) -> tuple[str, str] | None:
        """Return the next (worker id, model), None when nobody can take anything.

        The emptiest worker goes first, a warm one before a cold one. It keeps its model while that has work; else it
        takes a model that starves, else the largest backlog for each worker that already serves it.

        Args:
            backlog: What waits, by model.
            starving: Models that have waited for too long.
            hold_idle: Whether suspects wait: then one worker that is idle or nearly so is kept free for them.
        """
        held = self._kept_free() if hold_idle else None
        free = [
            (standing.in_flight, standing.model not in backlog, name)
            for standing, line in self._lines.items()
            if standing.in_flight < IN_FLIGHT_MAX and not standing.solo and not standing.models.isdisjoint(backlog)
            for name in line[:2]
            if held is None or name != held.id
        ]
        if not free:
            return None
        worker = self._views[min(free)[2]]
        return worker.id, self._model_for(worker, backlog, starving, held)

    def choose_solo(self, model: str) -> str | None:
        """Return an idle worker for suspects of `model`, one that holds it first; None when all are busy."""
        idle = [
            (standing.model != model, line[0])
            for standing, line in self._lines.items()
            if standing.in_flight == 0 and model in standing.models
        ]
        return min(idle)[1] if idle else None

    def _kept_free(self) -> WorkerView | None:
        """Return the worker that is kept free for suspects: the first of its line."""
        first = [(standing.solo, standing.in_flight, line[0]) for standing, line in self._lines.items()]
        return self._views[min(first)[2]] if first else None

    def _model_for(
        self, worker: WorkerView, backlog: Mapping[str, PendingWork], starving: frozenset[str], held: WorkerView | None
    ) -> str:
        hungry = [name for name in starving if name in worker.models and name in backlog]
        if hungry:
            return min(hungry, key=lambda name: (backlog[name].oldest, name))
        if worker.model is not None and worker.model in backlog:
            return worker.model

        def weight(name: str) -> tuple[float, int]:
            serving = self._serving[name] - (held is not None and held.model == name)
            return backlog[name].cost_tflop / (1 + serving), -backlog[name].oldest

        return max((name for name in backlog if name in worker.models), key=weight)


class _Standing(NamedTuple):
    """The state that workers of one line have in common. See `WorkerView`."""

    solo: bool
    in_flight: int
    model: str | None
    models: frozenset[str]


def _standing(view: WorkerView) -> _Standing:
    return _Standing(view.solo, view.in_flight, view.model, view.models)


def may_risk(num_ready: int, num_starting: int, has_backlog: bool) -> bool:
    """Whether suspects may be handed out: not to the last worker, while others start and there is other work for it.

    Suspects end processes, and a new one takes seconds to import what it needs; somebody goes on meanwhile.
    """
    return num_ready >= 2 or not num_starting or not has_backlog


def unit_cost_max(
    backlog_tflop: float, num_workers: int, rate_tflop_per_s: float | None, batch_tflop: float = 0.0
) -> float:
    """Return the cap on a unit's cost in TFLOP.

    `UNIT_S` of work at the rate measured in this run, and less toward the end: a quarter of each worker's share of
    what is left (guided self-scheduling), so that all workers, also those that still start, end together. Nothing is
    known before the first receipt; then the smallest unit, one batch, is the safe one. A batch that a worker found to
    be the best, or would try next, is not cut in two: `BATCH_FACTOR` times the usual unit is the most for it.

    Args:
        backlog_tflop: Predicted work that is left.
        num_workers: Workers that share it.
        rate_tflop_per_s: What one worker does.
        batch_tflop: Predicted work of the batch that a worker wants; 0 for no wish.
    """
    if rate_tflop_per_s is None:
        return 0.0
    usual = UNIT_S * rate_tflop_per_s
    share = backlog_tflop / (4 * max(num_workers, 1))
    return min(max(usual, min(batch_tflop, BATCH_FACTOR * usual)), share)


BATCH_FACTOR = 3.0
"""Units may take so many times `UNIT_S` for the sake of a whole batch: they stay under the notice of a spot node."""


def overdue(running: Sequence[Running]) -> tuple[str, Running] | None:
    """Return the kind of outcome of the first unit that is beyond its bound, and where it is; None when all is well."""
    for place in running:
        if place.elapsed_s > place.bound_s + ABORT_GRACE_S:
            kinds = {"generate": "Overdue", "load": "ModelLoadFailed"}
            if place.ids:
                kinds["fetch"] = "Undecoded"
            return kinds.get(place.phase, "Stuck"), place
    return None


def suspects(unit: Unit, ids: frozenset[str]) -> list[tuple[Request, ...]]:
    """Split a unit whose process ended: each request that was in the model alone, the others together."""
    others = tuple(request for request in unit.requests if request.id not in ids)
    alone: list[tuple[Request, ...]] = [(request,) for request in unit.requests if request.id in ids]
    return [*alone, others] if others else alone

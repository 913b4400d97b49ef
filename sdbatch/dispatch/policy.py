"""Which worker gets which model's work next, how large a unit is, and when a worker is given up.

    worker views + backlog --> choose() --> (worker, model)
    what a ping told       --> overdue() --> kind of outcome

Pure: no clock, no Ray, no storage, so every rule is tested in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdbatch.types import Backlog, Request, Running, Unit

IN_FLIGHT_MAX = 2
"""Units per worker: one in the model, one that fetches or encodes. More only enlarges what a kill costs."""

UNIT_S = 10.0
"""Aim for a unit's time in the model: well under a spot notice of 30 s, well over the half millisecond it costs."""

STARVE_UNITS = 64
"""A model that waits while this many units were handed out goes before the warm ones."""

MACHINE_FAULTS_MAX = 20
"""Faults in a row that blame no row, without one receipt between them; then the run stops."""

MODEL_LOADS_MAX = 2
"""Failed loads of one model in a row; then its rows are left for a later run."""

SOLO_DEATHS_MAX = 2
"""Deaths of a process while one request runs alone; then the request is set aside."""

SOLO_OVERDUE_MAX = 1
"""Deadlines missed by one request alone; the first it missed was in company."""

ABORT_GRACE_S = 5.0
"""A call that is past its deadline has so long to heed it before its process is ended: one denoising step, mostly."""

START_FAULTS_MAX = 3
"""Workers that fail to start before any is ready; then the run stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What the policy knows of a worker.

    Attributes:
        id: Name.
        models: Models its slot shape may hold.
        model: Model of the last unit it was given; None when it holds none.
        in_flight: Units it was given and has not ended.
        solo: Whether it runs suspects, and must be given nothing beside them.
    """

    id: str
    models: frozenset[str]
    model: str | None
    in_flight: int
    solo: bool


def choose(
    workers: Sequence[WorkerView], backlog: Mapping[str, Backlog], starving: frozenset[str] = frozenset()
) -> tuple[str, str] | None:
    """Return the next (worker id, model), None when nobody can take anything.

    The emptiest worker goes first, a warm one before a cold one. It keeps its model while that has work; else it takes
    a model that starves, else the largest backlog for each worker that already serves it.
    """
    free = [w for w in workers if w.in_flight < IN_FLIGHT_MAX and not w.solo and w.models & backlog.keys()]
    if not free:
        return None
    worker = min(free, key=lambda w: (w.in_flight, w.model not in backlog, w.id))
    hungry = sorted(starving & worker.models & backlog.keys(), key=lambda name: backlog[name].oldest)
    if hungry:
        return worker.id, hungry[0]
    if worker.model is not None and worker.model in backlog:
        return worker.id, worker.model
    serving = {name: sum(w.model == name for w in workers) for name in backlog}
    candidates = [name for name in backlog if name in worker.models]
    best = max(candidates, key=lambda name: (backlog[name].cost_tflop / (1 + serving[name]), -backlog[name].oldest))
    return worker.id, best


def choose_solo(workers: Sequence[WorkerView], model: str) -> str | None:
    """Return an idle worker for suspects of `model`, one that holds it first; None when all are busy."""
    idle = [w for w in workers if w.in_flight == 0 and model in w.models]
    return min(idle, key=lambda w: (w.model != model, w.id)).id if idle else None


def may_risk(num_ready: int, num_starting: int, has_backlog: bool) -> bool:
    """Whether suspects may be handed out: not to the last worker, while others start and there is other work for it.

    Suspects end processes, and a new one takes seconds to import what it needs; somebody goes on meanwhile.
    """
    return num_ready >= 2 or not num_starting or not has_backlog


def unit_cost_max(backlog_tflop: float, num_workers: int, rate_tflop_per_s: float | None) -> float:
    """Return the cap on a unit's cost in TFLOP.

    `UNIT_S` of work at the rate measured in this run, and less toward the end: a quarter of each worker's share of
    what is left (guided self-scheduling), so that all workers end together. Nothing is known before the first receipt;
    then the smallest unit, one batch, is the safe one.
    """
    if rate_tflop_per_s is None:
        return 0.0
    return min(UNIT_S * rate_tflop_per_s, backlog_tflop / (4 * max(num_workers, 1)))


def overdue(running: Sequence[Running]) -> tuple[str, Running] | None:
    """Return the kind of outcome of the first unit that is beyond its bound, and where it is; None when all is well."""
    for place in running:
        if place.elapsed_s > place.bound_s + ABORT_GRACE_S:
            kind = {"generate": "Overdue", "load": "ModelLoadFailed"}.get(place.phase, "Stuck")
            return kind, place
    return None


def suspects(unit: Unit, ids: frozenset[str]) -> list[tuple[Request, ...]]:
    """Split a unit whose process ended: each request that was in the model alone, the others together."""
    others = tuple(request for request in unit.requests if request.id not in ids)
    alone: list[tuple[Request, ...]] = [(request,) for request in unit.requests if request.id in ids]
    return [*alone, others] if others else alone

"""Pending requests, grouped by what may share a pipeline call, handed out as units.

    requests (in manifest order) --> Window.add() --> groups by batch key --> Window.take() --> Unit

A unit is capped by predicted cost and by 32 batches. Costly groups go first, so that what is left at the end is small;
full batches go before partial ones, so that rare keys wait for company while there are shards to come, and no longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import groupby
from operator import attrgetter
from typing import Literal

from sdbatch.families import Family
from sdbatch.recipe import parse_recipe
from sdbatch.types import PendingWork, Request, Unit

BATCHES_PER_UNIT_MAX = 32
AUTO_BATCH_MAX = 16
_AUTO_PIXELS = 512 * 512 * 16
STALE_FACTOR = 8
"""Heaps with so many times more entries than there are groups are made anew."""


def auto_batch_size(height: int, width: int, num_frames: int = 1) -> int:
    """Return the batch size tried first for `batch_size: auto`; the worker halves it when memory runs out.

    Sixteen at 512 x 512 and below, fewer in proportion above; at least one. On a tiny model 16 took 2.3 to 2.6 times
    less CPU a row than 1, and 64 no less than 16.
    """
    return max(1, min(AUTO_BATCH_MAX, _AUTO_PIXELS // (height * width * num_frames)))


@dataclass(slots=True)
class _Group:
    """Requests of one batch key, in order of arrival."""

    key: str
    batch_size: int
    cost_tflop: float
    requests: deque[tuple[int, Request]] = field(default_factory=deque)
    outputs: int = 0

    @property
    def oldest(self) -> int:
        """Arrival number of the first request."""
        return self.requests[0][0]


_Rank = tuple[bool, float, int]


class _Queue:
    """The requests that wait for one model. Their groups stand in two heaps, in order of rank and of age.

    An entry is put in whenever a group's rank or age changes, and one that is no longer true is dropped when it comes
    to the top, so that no choice looks at every group.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self.groups: dict[str, _Group] = {}
        self.outputs = 0
        self.cost_tflop = 0.0
        self._ranked: list[tuple[_Rank, str]] = []
        self._aged: list[tuple[int, str]] = []

    def add(self, group: _Group, first_arrival: int, requests: Sequence[Request]) -> None:
        """Take in requests at the end of their group."""
        was_empty, was_full = not group.requests, group.outputs >= group.batch_size
        outputs = sum([len(request.outputs) for request in requests])
        group.requests.extend(enumerate(requests, first_arrival))
        group.outputs += outputs
        self.outputs += outputs
        self.cost_tflop += outputs * group.cost_tflop
        if was_empty:
            self._enter(group)
        elif group.outputs >= group.batch_size and not was_full:
            heappush(self._ranked, (self._rank(group), group.key))

    def first(self) -> _Group:
        """Return the group that goes first."""
        while True:
            rank, key = self._ranked[0]
            group = self.groups.get(key)
            if group is not None and self._rank(group) == rank:
                return group
            heappop(self._ranked)

    def oldest(self) -> int:
        """Return the arrival number of the request that waits longest."""
        while True:
            arrival, key = self._aged[0]
            group = self.groups.get(key)
            if group is not None and group.oldest == arrival:
                return arrival
            heappop(self._aged)

    def take(self, group: _Group, outputs_max: int) -> tuple[Request, ...]:
        """Take requests off the head of a group: up to so many outputs, but one request at least."""
        members: list[Request] = []
        outputs = 0
        while group.requests and (not members or outputs + len(group.requests[0][1].outputs) <= outputs_max):
            _, request = group.requests.popleft()
            outputs += len(request.outputs)
            members.append(request)
        group.outputs -= outputs
        self.outputs -= outputs
        self.cost_tflop -= outputs * group.cost_tflop
        if group.requests:
            self._enter(group)
        else:
            del self.groups[group.key]
        return tuple(members)

    def least(self, group: _Group) -> int:
        """Return the outputs of the smallest unit that `take` makes of a group."""
        outputs = 0
        for _, request in group.requests:
            if outputs and outputs + len(request.outputs) > group.batch_size:
                break
            outputs += len(request.outputs)
        return outputs

    def end(self) -> None:
        """Let partial batches wait for company no longer."""
        self._waits = False
        self._sort([*self.groups.values()])

    def _rank(self, group: _Group) -> _Rank:
        """Full batches first while partial ones may find company, then the costliest rows, then the oldest."""
        return self._waits and group.outputs < group.batch_size, -group.cost_tflop, group.oldest

    def _enter(self, group: _Group) -> None:
        if len(self._ranked) + len(self._aged) > STALE_FACTOR * (len(self.groups) + 1):
            self._sort([each for each in self.groups.values() if each is not group])
        heappush(self._ranked, (self._rank(group), group.key))
        heappush(self._aged, (group.oldest, group.key))

    def _sort(self, groups: list[_Group]) -> None:
        self._ranked = [(self._rank(group), group.key) for group in groups]
        self._aged = [(group.oldest, group.key) for group in groups]
        heapify(self._ranked)
        heapify(self._aged)


class Window:
    """The requests that may be handed out now.

    Args:
        batch_sizes: Batch size by model name, or `auto`.
        families: Family by model name; one that is absent takes lists of rows.
    """

    def __init__(
        self, batch_sizes: Mapping[str, int | Literal["auto"]], families: Mapping[str, Family] | None = None
    ) -> None:
        self._batch_sizes = batch_sizes
        self._families = families or {}
        self._queues: dict[str, _Queue] = {}
        self._solo: deque[Unit] = deque()
        self._arrivals = 0
        self._next_unit = 0
        self._waits = True
        self.num_requests = 0

    def add(self, *requests: Request) -> None:
        """Take in pending requests; those that follow one another in one group are taken in together."""
        for (model, key), neighbours in groupby(requests, attrgetter("model", "batch_key")):
            members = list(neighbours)
            queue = self._queues.get(model)
            if queue is None:
                queue = self._queues[model] = _Queue(waits=self._waits)
            group = queue.groups.get(key)
            if group is None:
                group = queue.groups[key] = _Group(key, self._batch_size(members[0]), members[0].cost_tflop)
            queue.add(group, self._arrivals, members)
            self._arrivals += len(members)
            self.num_requests += len(members)

    def end(self) -> None:
        """Say that no company is to come: what is given back is all that may still be added."""
        self._waits = False
        for queue in self._queues.values():
            queue.end()

    def add_solo(self, requests: Iterable[Request], batch_size: int) -> None:
        """Take in suspects of a crash; they are handed out first, as one unit that runs alone."""
        members = tuple(requests)
        self._solo.append(self._unit(members, batch_size, solo=True))
        self.num_requests += len(members)

    def has_solo(self) -> bool:
        """Whether suspects wait."""
        return bool(self._solo)

    def peek_solo(self) -> Unit:
        """Return the oldest suspects without handing them out."""
        return self._solo[0]

    def take_solo(self) -> Unit:
        """Hand out the oldest suspects."""
        unit = self._solo.popleft()
        self.num_requests -= len(unit.requests)
        return unit

    def backlog(self) -> dict[str, PendingWork]:
        """Return what waits by model, suspects excluded; models without any are left out."""
        return {
            model: PendingWork(cost_tflop=queue.cost_tflop, outputs=queue.outputs, oldest=queue.oldest())
            for model, queue in self._queues.items()
        }

    def take(self, model: str, cost_max_tflop: float) -> Unit:
        """Hand out one unit of a model that has a backlog.

        Args:
            model: Its name.
            cost_max_tflop: The unit ends before it costs more, but holds one whole batch where there is one.
        """
        queue = self._queues[model]
        group = queue.first()
        cap = min(int(cost_max_tflop / group.cost_tflop), BATCHES_PER_UNIT_MAX * group.batch_size)
        members = queue.take(group, max(cap // group.batch_size * group.batch_size, group.batch_size))
        if not queue.groups:
            del self._queues[model]
        self.num_requests -= len(members)
        return self._unit(members, group.batch_size, solo=False)

    def least_tflop(self, model: str) -> float:
        """Return the cost of the smallest unit of a model that has a backlog, as `take` would hand it out now."""
        queue = self._queues[model]
        group = queue.first()
        return queue.least(group) * group.cost_tflop

    def drop(self, model: str) -> float:
        """Forget what waits for a model, suspects included; return its predicted cost in TFLOP."""
        queue = self._queues.pop(model, None)
        groups = queue.groups.values() if queue else ()
        waiting = [request for group in groups for _, request in group.requests]
        waiting += [request for unit in self._solo if unit.model == model for request in unit.requests]
        self._solo = deque(unit for unit in self._solo if unit.model != model)
        self.num_requests -= len(waiting)
        return sum(request.cost_tflop * len(request.outputs) for request in waiting)

    def _unit(self, requests: tuple[Request, ...], batch_size: int, *, solo: bool) -> Unit:
        self._next_unit += 1
        return Unit(
            id=f"{self._next_unit - 1:06d}",
            model=requests[0].model,
            requests=requests,
            batch_size=batch_size,
            cost_tflop=sum([request.cost_tflop * len(request.outputs) for request in requests]),
            solo=solo,
        )

    def _batch_size(self, request: Request) -> int:
        chosen = self._batch_sizes[request.model]
        recipe = parse_recipe(request.recipe)
        if recipe.batch_size is not None:
            return recipe.batch_size
        family = self._families.get(request.model)
        if family is not None and family.route_of(recipe).rows == "single":
            return 1
        if chosen != "auto":
            return chosen
        return auto_batch_size(recipe.height, recipe.width, recipe.num_frames or 1)


def bisected(unit: Unit) -> list[tuple[Request, ...]]:
    """Split the requests of a unit whose process died: halves; a single request once more, its attempt counted."""
    requests = unit.requests
    if len(requests) > 1:
        middle = len(requests) // 2
        return [requests[:middle], requests[middle:]]
    return [(requests[0]._replace(attempt=requests[0].attempt + 1),)]

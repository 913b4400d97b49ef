"""Holds a run to what it may spend: whether a worker is asked for, and whether it is given a unit.

    Allowance (what is left, how long work takes) + Fleet + Supply --> SpendingBound --> hand out | not now | refused

A prediction that would pass the bound is not handed out; those in flight are reserved. Workers that are then left
without work are ended, because their idle time costs as much as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from sdbatch.dispatch.allowance import Allowance, Pace, num_affordable
from sdbatch.dispatch.executor import Shape
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.slots import gpus_of
from sdbatch.dispatch.supply import Supply
from sdbatch.types import Unit


class SpendingBound:
    """What a run may still spend.

    Args:
        allowance: What may be spent; None for no bound.
        fleet: The workers.
        supply: The work.
        shapes: Slot shape of each model.

    Attributes:
        is_bounded: Whether there is a bound.
        is_short: Whether a unit was refused; no further worker is asked for then.
        refused_gpu_s: What the unit that was refused for good was predicted to take, in seconds times GPUs; None while
            there is none.
    """

    def __init__(self, allowance: Allowance | None, fleet: Fleet, supply: Supply, shapes: Mapping[str, Shape]) -> None:
        self.is_bounded = allowance is not None
        self.is_short = False
        self.refused_gpu_s: float | None = None
        self._allowance = allowance or Allowance()
        self._fleet = fleet
        self._supply = supply
        self._shapes = shapes

    def predicted_s(self, worker: str, unit: Unit) -> float:
        """Return the seconds that a unit is predicted to take on a worker."""
        return self._seconds(worker, unit.model, unit.cost_tflop) if self.is_bounded else 0.0

    def may_take_solo(self, worker: str) -> bool:
        """Return whether a worker may be given the oldest suspects now; see `may_take`."""
        return not self.is_bounded or self._may_take(
            worker, self._supply.window.peek_solo().model, lambda: self._supply.window.peek_solo().cost_tflop
        )

    def may_take(self, worker: str, model: str) -> bool:
        """Return whether a worker may be given the smallest unit of a model now; end what is idle where it may not.

        A model whose pace is only assumed is tried one unit a worker, so that a wrong guess costs no more than that.
        """
        return not self.is_bounded or self._may_take(worker, model, lambda: self._supply.window.least_tflop(model))

    def most_tflop(self, worker: str, model: str) -> float:
        """Return the most work that may be given to a worker now."""
        pace = self._pace(model)
        if not self.is_bounded or not pace.s_per_tflop:
            return math.inf
        left_s = self._left_gpu_s() / gpus_of(self._fleet[worker].shape)
        return (left_s - self._load_s(worker, model)) / pace.s_per_tflop

    def look_ahead(self) -> None:
        """Refuse everything where nothing is in flight and not even the smallest unit may be handed out."""
        if not self.is_bounded or self._fleet.num_in_flight:
            return
        window = self._supply.window
        least = [self._unit_gpu_s(model, window.least_tflop(model)) for model in window.backlog()]
        if window.has_solo():
            least.append(self._unit_gpu_s(window.peek_solo().model, window.peek_solo().cost_tflop))
        if least and (min(least) > self._left_gpu_s() or (self.is_short and not len(self._fleet))):
            self.refused_gpu_s = min(least)
            self._end_idle()

    def num_workers(self, shape: Shape, models: Collection[str], most: int) -> int:
        """Return how many workers of a shape may be asked for: their starts alone must not spend what there is."""
        if not self.is_bounded or not models:
            return most
        paces = {model: self._pace(model) for model in models}
        start_s = max(pace.start_s + pace.load_s for pace in paces.values())
        unit_s = min(self._supply.window.least_tflop(model) * pace.s_per_tflop for model, pace in paces.items())
        return min(most, num_affordable(self._left_gpu_s(), start_s * gpus_of(shape), unit_s * gpus_of(shape)))

    def _may_take(self, worker: str, model: str, cost_tflop: Callable[[], float]) -> bool:
        place = self._fleet[worker]
        if place.units and not self._pace(model).is_measured:
            return False
        wanted_gpu_s = self._seconds(worker, model, cost_tflop()) * gpus_of(place.shape)
        if wanted_gpu_s <= self._left_gpu_s():
            return True
        self.is_short = True
        if not self._fleet.num_in_flight:
            self.refused_gpu_s = wanted_gpu_s
        self._end_idle()
        return False

    def _end_idle(self) -> None:
        """End the workers without a unit: nothing is left for them, and their time costs as much as any other."""
        for name in self._fleet.idle():
            self._fleet.end(name)

    def _pace(self, model: str) -> Pace:
        return self._allowance.pace(model, self._supply.rates.get(model))

    def _seconds(self, worker: str, model: str, cost_tflop: float) -> float:
        return cost_tflop * self._pace(model).s_per_tflop + self._load_s(worker, model)

    def _load_s(self, worker: str, model: str) -> float:
        return self._pace(model).load_s if self._fleet[worker].model != model else 0.0

    def _unit_gpu_s(self, model: str, cost_tflop: float) -> float:
        """Return what a unit takes; before any worker was asked for, with what comes before its first one."""
        pace = self._pace(model)
        first_s = 0.0 if len(self._fleet) else pace.start_s + pace.load_s
        return (cost_tflop * pace.s_per_tflop + first_s) * gpus_of(self._shapes[model])

    def _left_gpu_s(self) -> float:
        """Return what may still be spent, less what is predicted for the units in flight."""
        return self._allowance.left_gpu_s(self._fleet.slot_seconds()) - self._fleet.left_gpu_s()

"""The work of a run: pending requests go through the window; units are taken out and put back.

pending requests --> Window --> take() --> unit          put_back(), put_suspects() <-- units that did not end
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from sdbatch.dispatch import policy
from sdbatch.errors import SdbatchError
from sdbatch.types import PendingWork, Receipt, Request, Unit

WINDOW_REQUESTS = 16_384
"""Requests held at once: a few MiB, and enough for rare batch keys to find company."""
REQUESTS_AT_ONCE = 64
"""Requests that go into the window together, which may so hold a few more; one by one takes twice the time."""


class WindowLike(Protocol):
    """The part of the plan's window that the dispatcher uses. See `sdbatch.plan.window.Window`."""

    num_requests: int

    def add(self, *requests: Request) -> None:
        """Take in pending requests."""

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

    def backlog(self) -> dict[str, PendingWork]:
        """Return what waits by model."""

    def take(self, model: str, cost_max_tflop: float) -> Unit:
        """Hand out one unit of a model."""

    def least_tflop(self, model: str) -> float:
        """Return the cost of the smallest unit that `take` may hand out now."""

    def drop(self, model: str) -> float:
        """Forget what waits for a model; return its cost."""


class Supply:
    """The work that is still to be handed out.

    Args:
        window: Groups requests into units.
        requests: Pending requests in manifest order.
        cost_tflop: Predicted cost of all of them.

    Attributes:
        window: The window.
        is_exhausted: Whether every pending request went into the window.
        rates: TFLOP a second of one worker, by model, as measured in this run.
        lost_models: Models whose rows are left to a later run, each with the reason.
        retries: Units that were put back.
    """

    def __init__(self, window: WindowLike, requests: Iterator[Request], cost_tflop: float) -> None:
        self.window = window
        self.is_exhausted = False
        self.rates: dict[str, float] = {}
        self.lost_models: dict[str, SdbatchError] = {}
        self.retries = 0
        self._requests = requests
        self._left_tflop = cost_tflop
        self._num_taken = 0
        self._last_taken: dict[str, int] = {}
        self._wanted_tflop: dict[str, float] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to be handed out."""
        return self.is_exhausted and not self.window.num_requests

    def fill(self) -> None:
        """Fill the window with pending requests."""
        while not self.is_exhausted and self.window.num_requests < WINDOW_REQUESTS:
            requests = list(islice(self._requests, REQUESTS_AT_ONCE))
            self.window.add(*(request for request in requests if request.model not in self.lost_models))
            if len(requests) < REQUESTS_AT_ONCE:
                self.is_exhausted = True
                self.window.end()

    def take(self, model: str, num_workers: int, most_tflop: float = math.inf) -> Unit:
        """Take one unit of a model out of the window.

        Args:
            model: The model.
            num_workers: Workers that share what is left, starting ones too: without them, the first ready worker of
                16 got two units of ten seconds and ended last.
            most_tflop: What may be spent on it; a unit holds one batch at least all the same.
        """
        wanted_tflop = self._wanted_tflop.get(model, 0.0)
        left_tflop = max(self._left_tflop, 0.0)
        cap_tflop = policy.unit_cost_max(left_tflop, num_workers, self.rates.get(model), wanted_tflop)
        return self._taken(self.window.take(model, min(cap_tflop, most_tflop)))

    def take_solo(self) -> Unit:
        """Take the oldest suspects out of the window."""
        return self._taken(self.window.take_solo())

    def starving(self, backlog: Mapping[str, PendingWork]) -> frozenset[str]:
        """Return the models that waited while too many units were handed out."""
        return frozenset(
            model for model in backlog if self._num_taken - self._last_taken.get(model, 0) >= policy.STARVE_UNITS
        )

    def measure(self, unit: Unit, receipt: Receipt) -> None:
        """Correct the model's rate by what this unit took; half of the new rate is the old one."""
        if receipt.generate_s > 0 and receipt.rows_generated:
            share = receipt.rows_generated / unit.num_outputs
            rate = unit.cost_tflop * share / receipt.generate_s
            self.rates[unit.model] = 0.5 * (self.rates.get(unit.model, rate) + rate)
        # Half a row more, so that rounding does not cost the last one.
        wanted = receipt.batch_wanted + 0.5 if receipt.batch_wanted else 0.0
        self._wanted_tflop[unit.model] = wanted * unit.cost_tflop / unit.num_outputs

    def put_back(self, unit: Unit) -> None:
        """Put back a unit that did not end and that nobody blames."""
        self.retries += 1
        if unit.model in self.lost_models:
            return
        self._left_tflop += unit.cost_tflop
        if unit.solo:
            self.window.add_solo(unit.requests, unit.batch_size)
        else:
            self.window.add(*unit.requests)

    def put_suspects(self, unit: Unit, parts: Sequence[tuple[Request, ...]]) -> None:
        """Put back a unit whose requests are suspects, in parts that each run alone."""
        self.retries += 1
        self._left_tflop += unit.cost_tflop
        for requests in parts:
            self.window.add_solo(requests, unit.batch_size)

    def lose_model(self, model: str, error: SdbatchError) -> None:
        """Leave what waits for a model to a later run."""
        self.lost_models[model] = error
        self._left_tflop -= self.window.drop(model)

    def _taken(self, unit: Unit) -> Unit:
        self._num_taken += 1
        self._last_taken[unit.model] = self._num_taken
        self._left_tflop -= unit.cost_tflop
        return unit

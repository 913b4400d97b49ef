"""The plan of a dispatcher: its work, its slots, its bounds, and what it asks of the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sdbatch.dispatch.allowance import Allowance
from sdbatch.dispatch.executor import Shape
from sdbatch.dispatch.likeness import Standard
from sdbatch.types import Receipt, Request, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work of a dispatcher, and the bounds it works within.

    Attributes:
        requests: Pending requests in manifest order.
        cost_tflop: Predicted cost of all of them.
        shapes: Slot shape of each model.
        worker_count: Workers per shape, None for as many as fit.
        worker_max: Most workers per shape.
        start_timeout_s: Longest wait for a first worker.
        bisect: Splits the requests of a unit whose process died.
        recover: Returns the receipt of a unit that was committed though its worker could not say so, else None.
        standards: What each model's outputs were made with by earlier runs.
        refuse_unlike: Whether a worker that differs from them, or from the first ready one, stops the run. Otherwise
            it is warned of.
        shortage: Says in words what a worker of a shape waits for.
        can_hold: Whether a worker of a shape could ever be started; one that could not is not waited for.
        allowance: What may be spent; None for no bound.
    """

    requests: Iterator[Request]
    cost_tflop: float
    shapes: Mapping[str, Shape]
    worker_count: int | None
    worker_max: int
    start_timeout_s: float
    bisect: Callable[[Unit], list[tuple[Request, ...]]]
    recover: Callable[[Unit], Receipt | None]
    standards: Mapping[str, Standard] = field(default_factory=dict)
    refuse_unlike: bool = False
    shortage: Callable[[Shape], str] = lambda shape: f"each asks for {shape.words}"
    can_hold: Callable[[Shape], bool] = lambda _: True
    allowance: Allowance | None = None

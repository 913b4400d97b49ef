"""A run that may spend so much stops within one unit of it: on one worker and on many, by good and bad predictions.

Time is simulated: a worker's units take as long as the test says, and the clock jumps from event to event.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.workers import receipt_of

from sdbatch.dispatch.allowance import Allowance, Pace, num_affordable
from sdbatch.dispatch.dispatcher import Dispatcher, Plan
from sdbatch.dispatch.executor import Died, Event, Placed, Ready, Shape, UnitDone
from sdbatch.dispatch.slots import SlotMeter, SlotSeconds, gpus_of
from sdbatch.plan.window import Window, bisected
from sdbatch.types import Request, Unit

GPU = Shape(num_gpus=1.0, num_cpus=1, memory_gib=None)
OUTPUT_S = 2.0
BATCH = 4
UNIT_MAX_S = 10.0 + BATCH * OUTPUT_S


@dataclass
class Simulated:
    """An executor in simulated time.

    Attributes:
        output_s: Seconds of an output.
        start_s: Seconds from a worker's slot to its readiness.
        placed_after_s: Seconds in which a worker only waits for a slot.
        dies: Units, by number, whose worker dies at their end.
    """

    output_s: float = OUTPUT_S
    start_s: float = 3.0
    placed_after_s: float = 50.0
    dies: frozenset[int] = frozenset()
    now_s: float = 0.0
    started: list[str] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _free_s: dict[str, float] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now_s

    def capacity(self, shape: Shape) -> int:
        return 1000

    def start(self, worker: str, shape: Shape) -> None:
        self.started.append(worker)
        self._later(self.placed_after_s, Placed(worker=worker))
        self._later(self.placed_after_s + self.start_s, Ready(worker=worker, facts={}))
        self._free_s[worker] = 0.0

    def submit(self, worker: str, unit: Unit) -> None:
        seconds = self.output_s * unit.num_outputs
        end_s = max(self._free_s[worker], self.now_s) + seconds
        self._free_s[worker] = end_s
        number = len(self.units)
        self.units.append(unit)
        receipt = receipt_of(unit, worker, generate_s=seconds, batch_size=BATCH)
        done: Event = UnitDone(worker=worker, unit=unit.id, receipt=receipt)
        self._later(
            end_s - self.now_s, Died(worker=worker, kind="NodeLost", message="") if number in self.dies else done
        )

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._events or self._events[0][0] > self.now_s + timeout_s:
            self.now_s += timeout_s
            return []
        self.now_s = max(self.now_s, self._events[0][0])
        return [heapq.heappop(self._events)[2]]

    def observe(self, observation: Any) -> None:
        pass

    def stop(self, worker: str) -> None:
        left = [entry for entry in self._events if entry[2].worker != worker]
        heapq.heapify(left)
        self._events = left

    def close(self) -> None:
        pass

    def _later(self, after_s: float, event: Event) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, len(self.units) * 10_000 + len(self._events), event))


@dataclass
class Spent:
    """What a run spent: in seconds, and in outputs."""

    gpu_s: float
    outputs: int
    dispatcher: Dispatcher


def _request(number: int, model: str = "m") -> Request:
    recipe = json.dumps({"task": "text-to-image", "height": 64, "width": 64, "num_inference_steps": 1})
    return Request(
        id=f"row-{number}",
        request_key=f"key-{number}",
        recipe=recipe,
        outputs=(0,),
        sources=(),
        model=model,
        batch_key=model,
        cost_tflop=1.0,
    )


def _spend(
    executor: Simulated,
    most_gpu_s: float,
    *,
    workers: int = 1,
    rows: int = 400,
    pace: Pace | None = None,
    shape: Shape = GPU,
) -> Spent:
    known = pace or Pace(s_per_tflop=OUTPUT_S, is_measured=True)

    def left_gpu_s(seconds: SlotSeconds) -> float:
        return most_gpu_s - _gpu_s(seconds)

    outputs = []
    dispatcher = Dispatcher(
        executor,
        Window({"m": BATCH}),
        Plan(
            requests=iter([_request(number) for number in range(rows)]),
            cost_tflop=float(rows),
            shapes={"m": shape},
            worker_count=workers,
            worker_max=64,
            start_timeout_s=600.0,
            bisect=bisected,
            recover=lambda _: None,
            allowance=Allowance(left_gpu_s=left_gpu_s, pace_of=lambda _: known),
        ),
        on_receipt=lambda unit, _: outputs.append(unit.num_outputs),
        on_set_aside=lambda *_: None,
        on_tick=lambda: None,
        should_stop=lambda: False,
        clock=executor.clock,
    )
    dispatcher.run()
    dispatcher.fleet.end_slots()
    return Spent(gpu_s=_gpu_s(dispatcher.fleet.slot_seconds()), outputs=sum(outputs), dispatcher=dispatcher)


def _gpu_s(seconds: SlotSeconds) -> float:
    return sum(slot_s * gpus_of(shape) for (shape, _), slot_s in seconds.items())


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("most_gpu_s", [40.0, 123.0, 400.0])
def test_a_run_stops_within_one_unit_of_its_bound(workers: int, most_gpu_s: float) -> None:
    spent = _spend(Simulated(), most_gpu_s, workers=workers)

    assert spent.dispatcher.refused_gpu_s is not None
    assert most_gpu_s - BATCH * OUTPUT_S <= spent.gpu_s <= most_gpu_s
    assert 0 < spent.outputs < 400


def test_without_a_bound_everything_is_made() -> None:
    spent = _spend(Simulated(), 1e9, workers=3)

    assert spent.outputs == 400
    assert spent.dispatcher.refused_gpu_s is None


@pytest.mark.parametrize("actual", [0.5, 2.0])
def test_a_prediction_that_was_measured_elsewhere_and_is_wrong_costs_one_unit_at_most(actual: float) -> None:
    spent = _spend(Simulated(output_s=OUTPUT_S * actual), 300.0, workers=2)

    assert abs(spent.gpu_s - 300.0) <= UNIT_MAX_S * max(actual, 1.0)


def test_an_assumed_pace_costs_one_unit_a_worker_at_most() -> None:
    executor = Simulated(output_s=50.0)
    spent = _spend(executor, 100.0, workers=2, pace=Pace(s_per_tflop=0.001))

    assert [unit.num_outputs for unit in executor.units] == [BATCH, BATCH]  # 200 s each, and no second one
    assert spent.gpu_s == pytest.approx(2 * (3.0 + BATCH * 50.0))


def test_nothing_is_asked_for_where_the_first_unit_would_pass_the_bound() -> None:
    executor = Simulated()
    spent = _spend(executor, BATCH * OUTPUT_S - 0.1)

    assert executor.started == []
    assert (spent.gpu_s, spent.outputs) == (0.0, 0)
    assert spent.dispatcher.refused_gpu_s == pytest.approx(BATCH * OUTPUT_S)


def test_start_and_load_count_before_a_worker_is_asked_for() -> None:
    executor = Simulated()
    pace = Pace(s_per_tflop=OUTPUT_S, start_s=3.0, load_s=20.0, is_measured=True)

    assert _spend(executor, 30.0, pace=pace).outputs == 0
    assert executor.started == []
    assert _spend(Simulated(), 32.0, pace=pace).outputs > 0


def test_no_more_workers_are_asked_for_than_their_starts_allow() -> None:
    executor = Simulated(start_s=20.0)
    pace = Pace(s_per_tflop=OUTPUT_S, start_s=20.0, is_measured=True)
    spent = _spend(executor, 100.0, workers=16, pace=pace)

    assert len(executor.started) == 3  # 20 s of start and 8 s of one unit each
    assert 100.0 - BATCH * OUTPUT_S <= spent.gpu_s <= 100.0
    assert num_affordable(100.0, 0.0, 0.0) >= 1000


def test_waiting_for_a_slot_costs_nothing_and_starting_in_it_does() -> None:
    quick, slow = _spend(Simulated(placed_after_s=0.0), 60.0), _spend(Simulated(placed_after_s=500.0), 60.0)
    longer = _spend(Simulated(start_s=30.0), 60.0)

    assert quick.outputs == slow.outputs
    assert longer.outputs < quick.outputs


def test_gpus_of_a_slot_multiply_what_its_seconds_cost() -> None:
    four = Shape(num_gpus=4.0, num_cpus=1, memory_gib=None)
    one, of_four = _spend(Simulated(), 400.0), _spend(Simulated(), 400.0, shape=four)

    assert of_four.outputs <= one.outputs / 3
    assert 400.0 - 4 * BATCH * OUTPUT_S <= of_four.gpu_s <= 400.0


def test_a_worker_that_is_lost_is_counted_and_ends_nothing_too_late() -> None:
    spent = _spend(Simulated(dies=frozenset({2, 3, 4})), 300.0, workers=2)

    assert spent.dispatcher.worker_deaths > 1
    assert spent.gpu_s <= 300.0 + UNIT_MAX_S
    assert spent.dispatcher.refused_gpu_s is not None


def test_a_run_over_midnight_is_split_and_a_clock_that_went_back_adds_nothing() -> None:
    meter = SlotMeter(86_400.0 - 10.0)
    meter.place(GPU, 86_400.0 - 10.0)
    meter.place(GPU, 86_400.0 + 5.0)
    meter.end(GPU, 86_400.0 + 20.0)
    seconds: Mapping[Any, float] = meter.seconds(86_400.0 + 1.0)

    assert seconds == {(GPU, "1970-01-01"): 10.0, (GPU, "1970-01-02"): 5.0 + 2 * 15.0}

"""Past this machine: the real dispatcher, policy and window on workers that are events on a heap.

    campaign (blocks of rows) --> Window --> Dispatcher --> SimulatedExecutor (own clock) --> Outcome

The dispatcher is the product's, unchanged; it sees an executor whose `wait` moves a clock to the next event. A block of
rows that share a call stands for them, so that 10^8 rows take as long as their units. Costs are known within
`ERROR`; workers are lost and come back; a worker that changes its model loads it.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from benchmarks.lab import Lab
from benchmarks.sleeping import ERROR
from benchmarks.table import Row, row
from sdbatch.campaign.index import INDEX_EVERY_COMMITS, INDEX_ROWS_MAX
from sdbatch.campaign.lease import BEAT_EVERY_S
from sdbatch.dispatch.dispatcher import Dispatcher, Plan
from sdbatch.dispatch.executor import Died, Event, Ready, Shape, UnitDone
from sdbatch.driver.one_run.records import STATUS_EVERY_S
from sdbatch.driver.rows.scan import PART_ROWS
from sdbatch.plan.window import Window, bisected
from sdbatch.types import Observation, PendingWork, Receipt, Request, Unit

SHAPE = Shape(num_gpus=1, num_cpus=1, memory_gib=None)
DRIVER_S = 0.02
"""Events so near one another are one round of the driver's loop."""

LIST_PAGE = 1000
PRICES: Mapping[str, float] = {"PUT": 0.005e-3, "GET": 0.0004e-3, "LIST": 0.005e-3}
"""List prices of Amazon S3 (us-east-1, standard) in dollars a request; HEAD is priced as GET."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated. Times in seconds.

    Attributes:
        rows: Of the manifest.
        workers: Slots; one that is lost comes back.
        clips: Share of rows that are clips.
        clip_cost: Of a clip, in pictures.
        picture_s: True cost of a picture, on average; 0.1 s is SD1.5 at 512 px on an H200.
        campaign_rows: Rows after which the manifest's order begins anew: pictures first, then the clips.
        batch: Pictures a call; a clip is a call.
        keys: Batch keys of the pictures, and a sixth as many of the clips.
        load_s: Of a model.
        finish_s: From a unit's last step to its receipt: encode, upload, commit.
        lost_every_s: Mean life of a worker (exponential); infinite for workers that stay.
        back_after_s: From the loss to its successor's being ready.
    """

    rows: int
    workers: int
    clips: float = 0.02
    clip_cost: float = 20.0
    picture_s: float = 0.1
    campaign_rows: int = 10_000
    batch: int = 16
    keys: int = 24
    load_s: float = 10.0
    finish_s: float = 1.0
    lost_every_s: float = 1800.0
    back_after_s: float = 300.0
    seed: int = 20261121


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a scenario. Times in simulated seconds, but `driver_s`.

    Attributes:
        makespan_s: From the first worker's being ready to the last receipt.
        useful_s: Of workers, spent on rows that were committed.
        ready_s: Of workers, from being ready to being lost or to the end.
        units: Committed.
        rows: Committed.
        lost_workers: How often.
        rows_twice: Rows that were made, and lost with their worker before the commit.
        loads: Of models.
        decisions: Units handed out.
        driver_s: CPU the dispatcher took, simulation included.
    """

    makespan_s: float = 0.0
    useful_s: float = 0.0
    ready_s: float = 0.0
    units: int = 0
    rows: int = 0
    lost_workers: int = 0
    rows_twice: float = 0.0
    loads: int = 0
    decisions: int = 0
    driver_s: float = 0.0

    @property
    def utilisation(self) -> float:
        """Return the share of the workers' time that went into rows that count."""
        return self.useful_s / self.ready_s


@dataclass(slots=True)
class _Slot:
    """A worker that lives: when it was ready, until when its model is busy, and what it was given."""

    since_s: float
    free_s: float
    model: str | None = None
    units: dict[str, tuple[Unit, float, float]] = field(default_factory=dict)


class SimulatedExecutor:
    """Runs units on a clock of its own. See `sdbatch.dispatch.executor.Executor`."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(scenario.seed)  # noqa: S311 -- a simulation's dice
        self._errors: dict[str, float] = {}
        self._now_s = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._count = itertools.count()
        self._slots: dict[str, _Slot] = {}
        self._num_started = 0
        self.outcome = Outcome()

    def capacity(self, shape: Shape) -> int:
        """Return the number of slots."""
        return self._scenario.workers

    def start(self, worker: str, shape: Shape) -> None:
        """Be ready at once at first, later as long after a loss as the scenario says."""
        self._num_started += 1
        delay_s = 0.0 if self._num_started <= self._scenario.workers else self._scenario.back_after_s
        self._push(delay_s, Ready(worker=worker, facts={}))

    def submit(self, worker: str, unit: Unit) -> None:
        """Put a unit behind what the worker has."""
        slot, scenario = self._slots[worker], self._scenario
        begin_s = max(self._now_s, slot.free_s)
        load_s = 0.0
        if slot.model != unit.model:
            load_s, slot.model = scenario.load_s, unit.model
            self.outcome.loads += 1
        true_s = self._true_s(unit)
        slot.free_s = begin_s + load_s + true_s
        slot.units[unit.id] = (unit, slot.free_s - true_s, slot.free_s)
        self.outcome.decisions += 1
        receipt = Receipt(
            unit=unit.id,
            worker=worker,
            outcomes=(),
            model_calls=math.ceil(unit.num_outputs / unit.batch_size),
            rows_generated=unit.num_outputs,
            assets_put=unit.num_outputs,
            assets_adopted=0,
            asset_bytes=0,
            generate_s=true_s,
            load_s=load_s,
            batch_size=unit.batch_size,
        )
        delay_s = slot.free_s + scenario.finish_s - self._now_s
        self._push(delay_s, UnitDone(worker=worker, unit=unit.id, receipt=receipt))

    def wait(self, timeout_s: float) -> list[Event]:
        """Move the clock to the next event; return it and those of the same round."""
        found: list[Event] = []
        until_s = self._events[0][0] + DRIVER_S if self._events else self._now_s
        while self._events and self._events[0][0] <= until_s:
            self._now_s, _, event = heappop(self._events)
            if self._happen(event):
                found.append(event)
        return found

    def observe(self, observation: Observation) -> None:
        """Show nothing."""

    def stop(self, worker: str) -> None:
        """End a worker; what it was given is lost."""
        slot = self._slots.pop(worker, None)
        if slot is None:
            return
        self.outcome.ready_s += self._now_s - slot.since_s
        for unit, begin_s, end_s in slot.units.values():
            made = min(max((self._now_s - begin_s) / (end_s - begin_s), 0.0), 1.0)
            self.outcome.rows_twice += made * unit.num_outputs

    def close(self) -> None:
        """End all workers."""
        self.outcome.makespan_s = self._now_s
        for worker in list(self._slots):
            self.stop(worker)

    def _happen(self, event: Event) -> bool:
        """Let an event come true; return whether it still does."""
        match event:
            case Ready():
                self._slots[event.worker] = _Slot(self._now_s, self._now_s)
                if math.isfinite(self._scenario.lost_every_s):
                    lost_s = self._random.expovariate(1 / self._scenario.lost_every_s)
                    self._push(lost_s, Died(worker=event.worker, kind="Preempted", message="the spot node went"))
                return True
            case UnitDone() if event.worker in self._slots:
                unit, begin_s, end_s = self._slots[event.worker].units.pop(event.unit)
                self.outcome.useful_s += end_s - begin_s
                self.outcome.units += 1
                self.outcome.rows += unit.num_outputs
                return True
            case Died() if event.worker in self._slots:
                self.outcome.lost_workers += 1
                self.stop(event.worker)
                return True
            case _:
                return False

    def _push(self, delay_s: float, event: Event) -> None:
        heappush(self._events, (self._now_s + delay_s, next(self._count), event))

    def _true_s(self, unit: Unit) -> float:
        """Return what a unit truly takes: half of the error is its batch key's own, half each row's."""
        key = unit.requests[0].batch_key
        if key not in self._errors:
            self._errors[key] = self._random.uniform(-1, 1)
        of_rows = self._random.gauss(0, 1 / math.sqrt(3 * unit.num_outputs))
        return unit.cost_tflop * (1 + ERROR * (self._errors[key] + max(-1.0, min(1.0, of_rows))) / 2)


class RowWindow:
    """The product's window, its size told in rows where a request is a block of them."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.num_requests = 0
        self.add_solo, self.has_solo = window.add_solo, window.has_solo
        self.peek_solo, self.take_solo = window.peek_solo, window.take_solo
        self.drop, self.end, self.least_tflop = window.drop, window.end, window.least_tflop

    def add(self, *requests: Request) -> None:
        """See `Window`."""
        self._window.add(*requests)
        self.num_requests += sum(len(request.outputs) for request in requests)

    def backlog(self) -> dict[str, PendingWork]:
        """See `Window`."""
        return self._window.backlog()

    def take(self, model: str, cost_max_tflop: float) -> Unit:
        """See `Window`."""
        unit = self._window.take(model, cost_max_tflop)
        self.num_requests -= unit.num_outputs
        return unit


def blocks(scenario: Scenario) -> Iterator[Request]:
    """Yield the manifest, campaign by campaign: its pictures, then its clips. A TFLOP here is a second."""
    kinds = {
        "picture": ("pictures", scenario.batch, scenario.picture_s, scenario.keys),
        "clip": (
            "clips",
            1,
            scenario.picture_s * scenario.clip_cost,
            max(1, scenario.keys // 6),
        ),
    }
    templates: dict[tuple[str, int, int], Request] = {}
    for start in range(0, scenario.rows, scenario.campaign_rows):
        rows = min(scenario.campaign_rows, scenario.rows - start)
        clips = round(rows * scenario.clips)
        for kind, count in (("picture", rows - clips), ("clip", clips)):
            model, size, cost, keys = kinds[kind]
            for number in range(math.ceil(count / size)):
                held = min(size, count - number * size)
                place = (kind, number % keys, held)
                if place not in templates:
                    templates[place] = _block(f"{kind}-{number % keys}", model, held, cost)
                yield templates[place]


def _block(key: str, model: str, rows: int, cost: float) -> Request:
    return Request(
        id=key,
        request_key="",
        recipe='{"height":512,"num_inference_steps":1,"task":"text-to-image","width":512}',
        outputs=tuple(range(rows)),
        sources=(),
        model=model,
        batch_key=key,
        cost_tflop=cost,
    )


def simulate(scenario: Scenario, manifest: Iterable[Request] | None = None) -> Outcome:
    """Work a scenario off with the real dispatcher.

    Args:
        scenario: What is simulated.
        manifest: Blocks in manifest order; those of the scenario by default.
    """
    executor = SimulatedExecutor(scenario)
    models = {"pictures": scenario.batch, "clips": 1}
    mean = 1 + scenario.clips * (scenario.clip_cost - 1)
    plan = Plan(
        requests=iter(blocks(scenario) if manifest is None else manifest),
        cost_tflop=scenario.rows * mean * scenario.picture_s,
        shapes=dict.fromkeys(models, SHAPE),
        worker_count=scenario.workers,
        worker_max=scenario.workers,
        start_timeout_s=math.inf,
        bisect=bisected,
        recover=lambda _: None,
    )
    window = RowWindow(Window({**models}, {}))
    dispatcher = Dispatcher(
        executor,
        window,
        plan,
        on_receipt=lambda *_: None,
        on_set_aside=lambda *_: None,
        on_tick=lambda: None,
        should_stop=lambda: False,
    )
    begin_s = time.process_time()
    dispatcher.run()
    executor.close()
    executor.outcome.driver_s = time.process_time() - begin_s
    return executor.outcome


def requests_of(outcome: Outcome, run_s: float) -> Counter[str]:
    """Return the store requests of a run, from where its files lie (`sdbatch.campaign.layout`).

    Args:
        outcome: Of the run; assets and commits are its own.
        run_s: Its wall seconds.
    """
    parts = math.ceil(outcome.rows / PART_ROWS)
    indexes = max(math.ceil(outcome.units / INDEX_EVERY_COMMITS), math.ceil(outcome.rows / INDEX_ROWS_MAX))
    starts = outcome.lost_workers + 1
    found: Counter[str] = Counter()
    found["PUT"] += outcome.rows + outcome.units + indexes  # assets, commits, index files
    found["PUT"] += math.ceil(outcome.rows_twice)  # assets of rows made twice are refused by the first ones
    found["PUT"] += 2 * parts  # the manifest as the run saw it; the effective rows
    found["PUT"] += math.ceil(run_s / BEAT_EVERY_S) + math.ceil(run_s / STATUS_EVERY_S)
    found["GET"] += math.ceil(run_s / BEAT_EVERY_S)  # is it still ours
    found["GET"] += math.ceil(outcome.rows_twice)  # the asset that is there
    found["GET"] += starts + 4 * outcome.lost_workers  # a worker sees the lease; was a lost unit committed
    found["GET"] += indexes + 2 * (outcome.units + parts)  # the end: the index, then metadata and gallery
    found["LIST"] += 3 * math.ceil(outcome.units / LIST_PAGE) + math.ceil(run_s / BEAT_EVERY_S)
    return found


def price_of(requests: Mapping[str, int]) -> float:
    """Return what store requests cost at list prices, in dollars."""
    return sum(PRICES[kind] * count for kind, count in requests.items())


# --- the table ------------------------------------------------------------------------------------------------------

SIZES = (1024, 64, 8)
FULL_ROWS = 100_000_000
QUICK_ROWS = 200_000


def tail(workers: int, seed: int, rows: int = 20_000) -> Outcome:
    """Work off 95 % pictures and then 5 % clips on workers that stay: what is lost is the uneven end."""
    return simulate(
        Scenario(
            rows=rows,
            workers=workers,
            clips=0.05,
            campaign_rows=rows,
            load_s=0.0,
            finish_s=0.1,
            lost_every_s=math.inf,
            seed=seed,
        )
    )


def rows(lab: Lab) -> list[Row]:
    """Simulate: the level end at 64 workers, then 10^8 rows on 1,024, 64 and 8 spot workers."""
    tails = [tail(64, lab.seed + number).utilisation for number in range(lab.pairs)]
    found = [
        row("tail_64", ours=min(tails), note=f"simulated with the real policy, 20,000 rows; the worst of {lab.pairs}")
    ]
    for workers in SIZES:
        scenario = Scenario(rows=QUICK_ROWS if lab.is_quick else FULL_ROWS, workers=workers, seed=lab.seed)
        outcome = simulate(scenario)
        print(f"  {workers} workers: {outcome}", flush=True)
        found += _described(scenario, outcome)
    return found


def _described(scenario: Scenario, outcome: Outcome) -> list[Row]:
    """Return what is told of one scenario."""
    name = f"simulated_{scenario.workers}"
    said = f"{scenario.workers} spot workers"
    needed_per_s = outcome.decisions / outcome.makespan_s
    able_per_s = outcome.decisions / outcome.driver_s
    requests = requests_of(outcome, outcome.makespan_s)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in requests.items())
    return [
        Row(
            name=f"{name}_utilisation",
            title=f"{scenario.rows:.0e} rows, 2 % clips, {said}, simulated: time in rows that count / workers' time",
            ours=outcome.utilisation,
            must=0.95,
            note=f"{outcome.makespan_s / 3600:.1f} h; {outcome.lost_workers:,} workers lost, {outcome.loads:,} loads",
        ),
        Row(
            name=f"{name}_decisions",
            title=f"{said}: decisions a second, needed / what one core does",
            ours=needed_per_s,
            baseline=able_per_s,
            ratio=able_per_s / needed_per_s,
            unit="decisions/s",
            note="the whole dispatcher, and the simulation with it; Ray's part is in the no-op rows",
        ),
        Row(
            name=f"{name}_twice",
            title=f"{said}: rows made twice",
            ours=outcome.rows_twice,
            baseline=float(scenario.rows),
            unit="rows",
            note=f"{outcome.rows_twice / scenario.rows:.3%} of all",
        ),
        Row(
            name=f"{name}_store",
            title=f"{said}: store requests at list prices",
            ours=price_of(requests),
            unit="$",
            note=f"{counted}; S3: PUT and LIST $0.005, GET $0.0004 a thousand",
        ),
    ]

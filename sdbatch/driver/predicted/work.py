"""The work of a run in seconds: by what each model took before, and on any number of workers.

rows to render --> Work        Paces of the campaign and of the cache --> Forecaster
Work + Forecaster --> seconds by model, wall_of() --> seconds on the clock, time of workers
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.checkpoints import ModelInfo
from sdbatch.device_choice import runs_on_cpu
from sdbatch.dispatch.allowance import Pace
from sdbatch.driver.predicted.paces import LOAD, START, Key, Measured, Paces, identity_of
from sdbatch.job import Job, Model
from sdbatch.plan.shape import batch_size_of

ASSUMED_TFLOP_PER_S = {"gpu": 200.0, "cpu": 0.03}
"""Rates until a run has measured its own: a quarter of an H200's matrix rate, and one laptop core."""
ASSUMED_START_S: Final = 10.0
ASSUMED_LOAD_S: Final = 10.0
"""Seconds of a worker's start and of a model's load until a run has measured its own."""
OUTPUTS_MIN: Final = 8
"""Outputs of a shape from which on their median counts; before, the model's rate does."""

Basis = Literal["measured", "rate", "assumed"]


class Predicted(NamedTuple):
    """Seconds of one output in the model, and what they rest on."""

    seconds: float
    basis: Basis


@dataclass(slots=True)
class Work:
    """Outputs that are to be rendered, by model and shape.

    Attributes:
        outputs: Their number.
        tflop: Predicted work of one of them.
    """

    outputs: Counter[tuple[str, str]] = field(default_factory=Counter)
    tflop: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, rows: pa.Table, numbers: Iterable[int]) -> None:
        """Add rows (`model`, `shape`, `cost_tflop`), with the number of outputs to render of each."""
        for place, cost_tflop, (number,) in sums_by_shape(rows, numbers):
            self.add_outputs(*place, cost_tflop, number)

    def add_outputs(self, model: str, shape: str, cost_tflop: float, number: int) -> None:
        """Add outputs that are alike, with the predicted work of one of them."""
        if number:
            self.outputs[model, shape] += number
            self.tflop[model, shape] = cost_tflop

    def __iter__(self) -> Iterator[tuple[str, str, float, int]]:
        """Yield model, shape, work of one output and number of outputs."""
        for place, number in self.outputs.items():
            yield *place, self.tflop[place], number


def sums_by_shape(
    rows: pa.Table, numbers: Iterable[int], *more: Iterable[int]
) -> Iterator[tuple[tuple[str, str], float, tuple[int, ...]]]:
    """Yield (model, shape), the predicted work of an output and the sums of the numbers, of rows that have a first one.

    Args:
        rows: `model`, `shape` and `cost_tflop`.
        numbers: One for each row.
        more: Further numbers of each row; 0 where its first one is.
    """
    table = rows.select(["model", "shape", "cost_tflop"])
    names = [f"number_{place}" for place in range(1 + len(more))]
    for name, column in zip(names, (numbers, *more), strict=True):
        table = table.append_column(name, pa.array(list(column), pa.int64()))
    table = table.filter(pc.greater(table.column(names[0]), 0))
    wanted = [("cost_tflop", "last"), *((name, "sum") for name in names)]
    sums = table.group_by(["model", "shape"], use_threads=False).aggregate(wanted)
    for row in sums.to_pylist():
        yield (row["model"], row["shape"]), row["cost_tflop_last"], tuple(row[f"{name}_sum"] for name in names)


class Forecaster:
    """Says how long the work of a job takes.

    Args:
        job: The job.
        models: Description of each of its models.
        campaign: What earlier runs of the campaign measured.
        cached: What the user's runs of any campaign measured.
        rates: TFLOP a second by model, of runs of an older version.
    """

    def __init__(
        self,
        job: Job,
        models: Mapping[str, ModelInfo],
        campaign: Paces,
        cached: Paces,
        rates: Mapping[str, float],
    ) -> None:
        self._job = job
        self._rates = rates
        self._known: dict[str, dict[str, Measured]] = {}
        self.devices: dict[str, str] = {}
        for name, info in models.items():
            identity, model = identity_of(info), job.models[name]
            device = _newest(campaign, identity, None) or _newest(cached, identity, model)
            if device is not None:
                self.devices[name] = device
                self._known[name] = {**_shapes(cached, identity, device), **_shapes(campaign, identity, device)}

    def predict(self, model: str, shape: str, tflop: float) -> Predicted:
        """Return the seconds of one output in its model."""
        known = self._known.get(model, {}).get(shape)
        if known is not None and known.num_outputs >= OUTPUTS_MIN:
            return Predicted(known.median_s, "measured")
        rate = self.rate_tflop_per_s(model)
        return Predicted(tflop / (rate or assumed_rate(self._job.models[model])), "rate" if rate else "assumed")

    def rate_tflop_per_s(self, model: str) -> float | None:
        """Return TFLOP a second of one worker, over all shapes that were measured; None where nothing was."""
        known = [one for shape, one in self._known.get(model, {}).items() if shape not in {START, LOAD}]
        seconds = sum(one.median_s * one.num_outputs for one in known)
        return sum(one.tflop * one.num_outputs for one in known) / seconds if seconds else self._rates.get(model)

    def start_s(self, model: str) -> float | None:
        """Return the seconds of a worker's start; None where none was measured."""
        return self._median(model, START)

    def load_s(self, model: str) -> float | None:
        """Return the seconds of a model's load; None where none was measured."""
        return self._median(model, LOAD)

    def pace(self, model: str) -> Pace:
        """Return a model's pace for a budget, which is held to what was measured of start and load."""
        rate = self.rate_tflop_per_s(model)
        return Pace(
            s_per_tflop=1 / (rate or assumed_rate(self._job.models[model])),
            start_s=self.start_s(model) or 0.0,
            load_s=self.load_s(model) or 0.0,
            is_measured=rate is not None,
        )

    def _median(self, model: str, what: str) -> float | None:
        known = self._known.get(model, {}).get(what)
        return known.median_s if known else None


def assumed_rate(model: Model) -> float:
    """Return TFLOP a second of one worker of which nothing was measured.

    `num_gpus: null` is one GPU where the cluster has any. A plan asks no cluster, and takes it for one GPU.
    """
    return ASSUMED_TFLOP_PER_S["cpu" if model.num_gpus == 0 else "gpu"]


def _newest(paces: Paces, identity: str, model: Model | None) -> str | None:
    """Return the device that a model was measured on last; only one that its slot may have, where a model is given."""
    on_cpu = model is not None and (model.num_gpus == 0 or runs_on_cpu())
    found = [
        (measured.at_s, key.device)
        for key, measured in paces.by_key.items()
        if key.model == identity
        and key.shape != LOAD
        and (model is None or model.num_gpus is None or (key.device == "CPU") == on_cpu)
    ]
    return max(found)[1] if found else None


def _shapes(paces: Paces, identity: str, device: str) -> dict[str, Measured]:
    own = {key.shape: one for key, one in paces.by_key.items() if key.model == identity and key.device == device}
    start = paces.by_key.get(Key("", device, START))
    return {**own, START: start} if start else own


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """How long a run takes on some workers.

    Attributes:
        workers: Of each shape of slot; fewer where there is no work for so many.
        wall_s: Seconds on the clock, with the start of workers, the loads of models and the tail, in which workers end
            one after the other.
        slot_gpu_s: Seconds that workers hold their slots times the GPUs of each: what the run costs.
        model_loads: Loads of models.
    """

    workers: int
    wall_s: float
    slot_gpu_s: float
    model_loads: int


@dataclass(slots=True)
class _Pool:
    """The work of models that share their workers."""

    seconds: float = 0.0
    calls: int = 0
    call_s: float = 0.0
    models: set[str] = field(default_factory=set)


def wall_of(job: Job, work: Work, forecaster: Forecaster, workers: int) -> Wall:
    """Return how long work takes on so many workers of each shape of slot.

    The tail is half of the longest call for all workers but one: units get smaller toward the end, down to one call.
    """
    pools: defaultdict[tuple[object, ...], _Pool] = defaultdict(_Pool)
    for model, shape, tflop, number in work:
        pool, batch_size = pools[job.models[model].slot], batch_size_of(shape)
        output_s = forecaster.predict(model, shape, tflop).seconds
        pool.seconds += output_s * number
        pool.calls += math.ceil(number / batch_size)
        pool.call_s = max(pool.call_s, output_s * min(batch_size, number))
        pool.models.add(model)
    wall_s, gpus, loads = 0.0, 0.0, 0
    for pool in pools.values():
        count = min(workers, pool.calls)
        pool_loads = max(len(pool.models), count)
        start_s = max(_known(forecaster.start_s(model), ASSUMED_START_S) for model in pool.models)
        load_s = sum(_known(forecaster.load_s(model), ASSUMED_LOAD_S) for model in pool.models) / len(pool.models)
        tail_s = 0.5 * (1 - 1 / count) * pool.call_s
        wall_s = max(wall_s, start_s + (pool_loads * load_s + pool.seconds) / count + tail_s)
        gpus += count * job.models[min(pool.models)].slot_gpus
        loads += pool_loads
    return Wall(workers=workers, wall_s=wall_s, slot_gpu_s=wall_s * gpus, model_loads=loads)


def _known(seconds: float | None, assumed_s: float) -> float:
    return assumed_s if seconds is None else seconds

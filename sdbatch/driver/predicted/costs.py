"""Predicted work in hours and money: by model, by task, by columns of the manifest, on numbers of workers.

rows + outputs to make --> Made        Made + Forecaster + prices --> Costs --> WorkForecast, WallForecast
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign.campaign import RECORDS_MAX, Campaign
from sdbatch.campaign.spending import HOUR_S
from sdbatch.checkpoints import ModelInfo
from sdbatch.columns import IN_RECIPE
from sdbatch.driver.predicted.paces import Paces, identity_of, remembered
from sdbatch.driver.predicted.work import Basis, Forecaster, Work, sums_by_shape, wall_of
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.errors import JobError
from sdbatch.job import Job
from sdbatch.plan.shape import task_of
from sdbatch.storage import Store

SOME_WORKERS: Final = (1, 4)
"""Numbers of workers that every forecast tells of, beside the job's own."""
GROUPS_MAX: Final = 1000
"""Groups of `--by` that are told by themselves; the others are told together."""
_PLAIN: Final = ("id", "model", "task", "num_outputs")
_BY: Final = (*_PLAIN, *(name for name, column in IN_RECIPE.items() if not pa.types.is_nested(column.type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkForecast:
    """What some of the work takes: a model's, a task's, or that of rows with equal columns.

    Attributes:
        values: What the rows have in common, by column.
        assets: Files it would make, copies included.
        gpu_s: Seconds in the model times the GPUs of a worker's slot.
        cost: Money of that; None without prices. The time in which workers start, load and wait comes on top.
        measured: Share of the seconds that rests on measured outputs of the same shape.
    """

    values: dict[str, Any]
    assets: int
    gpu_s: float
    cost: float | None
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WallForecast:
    """What a run takes on some workers.

    Attributes:
        workers: Of each shape of slot.
        wall_s: Seconds on the clock, with starts, loads and the tail.
        slot_gpu_s: Time of workers, waiting included, times their GPUs.
        cost: Money of that; None without prices.
        model_loads: Loads of models.
    """

    workers: int
    wall_s: float
    slot_gpu_s: float
    cost: float | None
    model_loads: int


class Grouping:
    """Reads the columns that a forecast is told by.

    Args:
        manifest: The rows.
        by: Names of columns.

    Raises:
        JobError: When the manifest has no such column, or it does not group rows.
    """

    def __init__(self, manifest: ResolvedManifest, by: Sequence[str]) -> None:
        own = manifest.own_columns() if by else []
        for name in by:
            if name not in own and name not in _BY:
                known = ", ".join([*own, *(each for each in _BY if each not in IN_RECIPE)])
                raise JobError(f"--by {name}: rows have no such column to be told apart by; there are {known}, ...")
        self._by = tuple(by)
        self.is_empty = not by
        self._in_recipe = [name for name in by if name not in own and name not in _PLAIN]
        self.columns = [*(name for name in by if name in own), *(["recipe"] if self._in_recipe else [])]

    def values(self, rows: pa.Table) -> Iterator[tuple[Any, ...]]:
        """Yield the values of each row."""
        recipes: Sequence[Mapping[str, Any]] = [{}] * rows.num_rows
        if self._in_recipe:
            recipes = list(map(json.loads, rows.column("recipe").to_pylist()))
        columns = [self._column(name, rows, recipes) for name in self._by]
        return iter(zip(*columns, strict=True)) if columns else iter([()] * rows.num_rows)

    def _column(self, name: str, rows: pa.Table, recipes: Sequence[Mapping[str, Any]]) -> list[Any]:
        if name == "task":
            return list(map(task_of, rows.column("shape").to_pylist()))
        if name in self._in_recipe:
            neutral = IN_RECIPE[name].neutral
            return [recipe.get(name, neutral) for recipe in recipes]
        return rows.column(name).to_pylist() if name in rows.column_names else [None] * rows.num_rows


@dataclass(slots=True)
class Made:
    """What a run would make.

    Attributes:
        work: What is rendered of it.
        assets: All files, by model and shape.
        groups: Files and what is rendered, by the values of columns.
    """

    work: Work = field(default_factory=Work)
    assets: Counter[tuple[str, str]] = field(default_factory=Counter)
    groups: defaultdict[tuple[Any, ...], tuple[Counter[tuple[str, str]], Work]] = field(
        default_factory=lambda: defaultdict(lambda: (Counter(), Work()))
    )

    def add(
        self,
        rows: pa.Table,
        outputs: Sequence[tuple[int, ...]],
        rendered: Sequence[tuple[int, ...]],
        grouping: Grouping,
    ) -> None:
        """Add rows, with the outputs that are made of each and those of them that are rendered."""
        for place, cost_tflop, (number, num_rendered) in sums_by_shape(rows, map(len, outputs), map(len, rendered)):
            self.assets[place] += number
            self.work.add_outputs(*place, cost_tflop, num_rendered)
        if grouping.is_empty:
            return
        models, shapes, costs = (rows.column(name).to_pylist() for name in ("model", "shape", "cost_tflop"))
        for row, values in enumerate(grouping.values(rows)):
            if outputs[row]:
                assets, work = self.groups[values]
                assets[models[row], shapes[row]] += len(outputs[row])
                work.add_outputs(models[row], shapes[row], costs[row], len(rendered[row]))

    @property
    def assets_by_model(self) -> dict[str, int]:
        """Files by model."""
        counts: Counter[str] = Counter()
        for (model, _), number in self.assets.items():
            counts[model] += number
        return dict(counts)


class Costs:
    """Tells work in seconds, hours and money.

    Args:
        job: The job.
        forecaster: Says how long outputs take.
    """

    def __init__(self, job: Job, forecaster: Forecaster) -> None:
        self._job = job
        self._forecaster = forecaster

    def gpu_s(self, work: Work) -> float:
        """Return the seconds in the model times the GPUs of a worker's slot."""
        return sum(self._by_basis(work).values())

    def basis(self, work: Work) -> dict[str, float]:
        """Return what share of the seconds is measured, by the model's rate, and assumed."""
        seconds = self._by_basis(work)
        total = sum(seconds.values())
        return {basis: of / total if total else 0.0 for basis, of in seconds.items()}

    def walls(self, work: Work) -> list[WallForecast]:
        """Return what the work takes on 1, on 4 and on the job's own number of workers."""
        if not work.outputs:
            return []
        found = [wall_of(self._job, work, self._forecaster, number) for number in sorted(self._numbers())]
        return [
            WallForecast(
                workers=wall.workers,
                wall_s=wall.wall_s,
                slot_gpu_s=wall.slot_gpu_s,
                cost=self._cost(wall.slot_gpu_s),
                model_loads=wall.model_loads,
            )
            for wall in found
        ]

    def own_wall_s(self, walls: Sequence[WallForecast]) -> float | None:
        """Return the seconds on the clock on the job's own number of workers; None where it states none."""
        own = self._own_number()
        return next((wall.wall_s for wall in walls if wall.workers == own), 0.0) if own else None

    def told(self, made: Made, values_of: Callable[[str, str], dict[str, Any]]) -> list[WorkForecast]:
        """Return what each part of the work takes; `values_of` says, of model and shape, which part that is."""
        groups: dict[tuple[Any, ...], tuple[dict[str, Any], Counter[tuple[str, str]], Work]] = {}
        for place, number in made.assets.items():
            values = values_of(*place)
            _, assets, _ = groups.setdefault(tuple(values.values()), (values, Counter(), Work()))
            assets[place] += number
        for model, shape, tflop, number in made.work:
            work = groups[tuple(values_of(model, shape).values())][2]
            work.add_outputs(model, shape, tflop, number)
        return self._sorted([self._told(values, assets, work) for values, assets, work in groups.values()])

    def told_by(self, made: Made, by: Sequence[str]) -> list[WorkForecast]:
        """Return what rows with equal columns take; what is beyond `GROUPS_MAX` groups is told together, as null."""
        told = self._sorted(
            [
                self._told(dict(zip(by, values, strict=True)), assets, work)
                for values, (assets, work) in made.groups.items()
            ]
        )
        rest = told[GROUPS_MAX:]
        if not rest:
            return told
        gpu_s = sum(one.gpu_s for one in rest)
        together = WorkForecast(
            values={"...": f"{len(rest)} more"},
            assets=sum(one.assets for one in rest),
            gpu_s=gpu_s,
            cost=self._cost(gpu_s),
            measured=sum(one.measured * one.gpu_s for one in rest) / gpu_s if gpu_s else 0.0,
        )
        return [*told[:GROUPS_MAX], together]

    def _told(self, values: dict[str, Any], assets: Counter[tuple[str, str]], work: Work) -> WorkForecast:
        gpu_s = self.gpu_s(work)
        return WorkForecast(
            values=values,
            assets=assets.total(),
            gpu_s=gpu_s,
            cost=self._cost(gpu_s),
            measured=self.basis(work)["measured"],
        )

    @staticmethod
    def _sorted(told: list[WorkForecast]) -> list[WorkForecast]:
        return sorted(told, key=lambda one: (-one.gpu_s, -one.assets, str(one.values)))

    def _by_basis(self, work: Work) -> dict[Basis, float]:
        seconds: dict[Basis, float] = {"measured": 0.0, "rate": 0.0, "assumed": 0.0}
        for model, shape, tflop, number in work:
            predicted = self._forecaster.predict(model, shape, tflop)
            seconds[predicted.basis] += predicted.seconds * number * self._job.models[model].slot_gpus
        return seconds

    def _cost(self, gpu_s: float) -> float | None:
        prices = self._job.prices
        return gpu_s / HOUR_S * prices.gpu_hour if prices else None

    def _own_number(self) -> int | None:
        count = self._job.workers.count
        return min(count, self._job.workers.max) if isinstance(count, int) else None

    def _numbers(self) -> set[int]:
        own = self._own_number()
        return {*SOME_WORKERS, *([own] if own else [])}


def forecaster_of(job: Job, models: Mapping[str, ModelInfo], store: Store) -> Forecaster:
    """Return what the newest runs of a campaign, and the user's cache, know of the pace of a job's models."""
    campaign, rates = measured_by_runs(store, map(identity_of, models.values()))
    return Forecaster(job, models, campaign, remembered(), rates)


def measured_by_runs(store: Store, identities: Iterable[str]) -> tuple[Paces, dict[str, float]]:
    """Return what the newest `RECORDS_MAX` runs measured, and TFLOP a second by model, as version 0.1 recorded it.

    Args:
        store: The campaign.
        identities: Models that are looked for; once each is known no older run is read.
    """
    records = []
    wanted = set(identities)
    for record in Campaign(store).records(RECORDS_MAX):
        rates_of_run = {} if "paces" in record else record.get("rate_tflop_per_s", {})  # they know no identity
        records.append((Paces.of_list(record.get("paces")), rates_of_run))
        wanted -= {key.model for key in records[-1][0].by_key}
        if not wanted:
            break
    campaign = Paces()
    rates: dict[str, float] = {}
    for paces, of_run in reversed(records):
        campaign.merge(paces)
        rates |= of_run
    return campaign, rates

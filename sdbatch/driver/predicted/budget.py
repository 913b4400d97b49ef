"""The budgets of a job, held against what the campaign's runs have taken: how much is left for this one.

limits.cost, limits.gpu_hours + Spending of earlier runs + this run's slots --> seconds left, records, sentences
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sdbatch.campaign.spending import HOUR_S, Spending, Spent, slots_of
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.slots import SlotSeconds, day_of, gpus_of
from sdbatch.job import Budget, Job
from sdbatch.report.progress import hours, money


class RunBudget:
    """What a run may take, and what it has.

    Args:
        job: The job.
        before: What the campaign's earlier runs took.
    """

    def __init__(self, job: Job, before: Spending) -> None:
        self._prices = job.prices
        self._before = before
        named = {"cost": job.limits.cost, "gpu_hours": job.limits.gpu_hours}
        self._budgets: dict[str, Budget] = {name: budget for name, budget in named.items() if budget is not None}

    @property
    def is_bounded(self) -> bool:
        """Whether the job has a budget."""
        return bool(self._budgets)

    def own(self, seconds: SlotSeconds) -> Spending:
        """Return what this run has taken."""
        by_day: defaultdict[str, float] = defaultdict(float)
        for (shape, day), slot_s in seconds.items():
            by_day[day] += slot_s * gpus_of(shape)
        return Spending.at(self._prices, by_day)

    def left_gpu_s(self, seconds: SlotSeconds) -> float:
        """Return what is left of the tightest budget, in seconds of workers times their GPUs."""
        own = self.own(seconds)
        return min((self._left_gpu_s(name, budget, own) for name, budget in self._budgets.items()), default=math.inf)

    def record(self, fleet: Fleet | None) -> dict[str, Any]:
        """Return what stands in the run's records: what earlier runs took, what this one has, and its slots."""
        return {"before": self._before.as_dict(), **self.own_record(fleet)}

    def own_record(self, fleet: Fleet | None) -> dict[str, Any]:
        """Return what this run alone has taken; another thread may ask."""
        seconds = {} if fleet is None else fleet.slot_seconds()
        slots: defaultdict[Any, float] = defaultdict(float)
        for (shape, _), slot_s in seconds.items():
            slots[shape] += slot_s
        models = {} if fleet is None else fleet.models
        return {
            "own": self.own(seconds).as_dict(),
            "slots": slots_of((models[shape], gpus_of(shape), slot_s) for shape, slot_s in slots.items()),
        }

    def reached(self, wanted_gpu_s: float, seconds: SlotSeconds) -> str:
        """Return, in a sentence, which budget would be passed by what comes next, and what to do."""
        own = self.own(seconds)
        left = {name: self._left_gpu_s(name, budget, own) for name, budget in self._budgets.items()}
        name = min(left, key=lambda each: left[each])
        budget = self._budgets[name]
        unit = self._money_or_hours(name, wanted_gpu_s)
        flag = "--budget AMOUNT" if name == "cost" else "--budget HOURSgpu_hours"
        later = "tomorrow (UTC), or now " if budget.per == "day" else ""
        return (
            f"limits.{name} = {self._amount(name, budget.max)} per {budget.per} is reached: "
            f"{self._amount(name, self._taken(name, budget, own))} are spent, and the next unit is predicted to take "
            f"{unit}; what is made stays, run again {later}with a larger one ({flag}) to go on"
        )

    def told(self) -> list[str]:
        """Return what each budget leaves before a run, as a sentence."""
        return list(self._told())

    def _told(self) -> Iterator[str]:
        for name, budget in self._budgets.items():
            taken = self._taken(name, budget, Spending())
            spent, left = (self._amount(name, amount) for amount in (taken, max(budget.max - taken, 0.0)))
            yield f"limits.{name} = {self._amount(name, budget.max)} per {budget.per}: {spent} spent, {left} left"
        if self._budgets and self._before.num_unrecorded:
            yield (
                f"{self._before.num_unrecorded} run(s) of an older sdbatch did not record the time of their workers; "
                "no budget counts them"
            )

    def _left_gpu_s(self, name: str, budget: Budget, own: Spending) -> float:
        left = budget.max - self._taken(name, budget, own)
        price = self._prices.gpu_hour if name == "cost" and self._prices else 1.0
        return left / price * HOUR_S

    def _taken(self, name: str, budget: Budget, own: Spending) -> float:
        """Return what counts toward a budget, in its unit."""
        day = day_of(time.time())
        spent: Spent = {
            "run": own.total,
            "day": self._before.of_day(day).plus(own.of_day(day)),
            "campaign": self._before.total.plus(own.total),
        }[budget.per]
        return spent.money(self._prices) if name == "cost" and self._prices else spent.gpu_s / HOUR_S

    def _money_or_hours(self, name: str, gpu_s: float) -> str:
        price = self._prices.gpu_hour if name == "cost" and self._prices else 1.0
        return self._amount(name, gpu_s / HOUR_S * price)

    def _amount(self, name: str, amount: float) -> str:
        if name == "cost" and self._prices:
            return money(amount, self._prices.currency)
        return hours(amount)

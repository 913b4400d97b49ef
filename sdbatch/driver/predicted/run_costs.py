"""What one run takes, beside what was forecast and what it may: budget, slots and paces put together for its session.

begin(work) --> Allowance for the dispatcher        follow(fleet), note(receipt) --> records, and the run's result
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sdbatch.campaign.spending import HOUR_S, spending_before
from sdbatch.checkpoints import ModelInfo
from sdbatch.dispatch.allowance import Allowance
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.slots import SlotSeconds
from sdbatch.driver.predicted.budget import RunBudget
from sdbatch.driver.predicted.costs import forecaster_of
from sdbatch.driver.predicted.measuring import RunMeasure
from sdbatch.driver.predicted.work import Work
from sdbatch.job import Job
from sdbatch.storage import Store
from sdbatch.types import Receipt, Unit


class RunCosts:
    """Follows one run.

    Args:
        job: The job.
        models: Description of each of its models.
        store: The campaign.
        run_id: The run; earlier ones are counted as it begins.

    Raises:
        UserError: When the job has a budget, and what earlier runs took cannot be read.
    """

    def __init__(self, job: Job, models: Mapping[str, ModelInfo], store: Store, run_id: str) -> None:
        self._job = job
        self._models = models
        self._store = store
        self._run_id = run_id
        self._budget = RunBudget(job, spending_before(store, run_id, is_bounded=job.limits.is_budgeted))
        self._began_s = time.monotonic()
        self._most_workers = 0
        self._measure: RunMeasure | None = None
        self._fleet: Fleet | None = None

    def begin(self, work: Work) -> Allowance | None:
        """Forecast the work; return what may be spent on it, None where no budget bounds it."""
        forecaster = forecaster_of(self._job, self._models, self._store)
        self._measure = RunMeasure(self._job, self._models, forecaster, work)
        if not self._budget.is_bounded:
            return None
        return Allowance(left_gpu_s=self._budget.left_gpu_s, pace_of=forecaster.pace)

    def follow(self, fleet: Fleet) -> None:
        """Count the time of a fleet's workers."""
        self._fleet = fleet

    def note(self, unit: Unit, receipt: Receipt, facts: Mapping[str, str]) -> None:
        """Note how long a unit took that was committed."""
        if self._measure is not None:
            self._measure.note(unit, receipt, facts)

    def tick(self) -> None:
        """Note how many workers there are."""
        self._most_workers = max(self._most_workers, self._fleet.num_ready if self._fleet is not None else 0)

    def end_slots(self) -> None:
        """Count no further time: whatever ran the workers is closed."""
        if self._fleet is not None:
            self._fleet.end_slots()

    def reached(self, wanted_gpu_s: float) -> str:
        """Return, in a sentence, which budget ended the run; see `RunBudget.reached`."""
        return self._budget.reached(wanted_gpu_s, self._seconds())

    def record(self) -> dict[str, Any]:
        """Return what stands in the run's records; see `RunBudget.record`."""
        return self._budget.record(self._fleet)

    def beat_note(self) -> dict[str, Any]:
        """Return what a beat says: a driver that is killed has taken what its last one tells."""
        return {"run_id": self._run_id, "spending": self._budget.own_record(self._fleet)}

    def paces(self) -> list[dict[str, Any]]:
        """Return what was measured, as it stands in a record."""
        return self._measure.paces() if self._measure is not None else []

    def result(self) -> dict[str, Any]:
        """Return what a run's result says of it, and remember what was measured: the run ends."""
        own = self._budget.own(self._seconds()).total
        prices = self._job.prices
        told: dict[str, Any] = {
            "gpu_hours": own.gpu_s / HOUR_S,
            "cost": own.money(prices) if prices else None,
            "currency": prices.currency if prices else None,
        }
        if self._measure is not None:
            self._measure.end(self._fleet)
            told["forecast"] = self._measure.record(time.monotonic() - self._began_s, self._most_workers, own.gpu_s)
        return told

    def _seconds(self) -> SlotSeconds:
        return {} if self._fleet is None else self._fleet.slot_seconds()

"""What a run measures of its models, beside what was forecast: for its record, and for later forecasts.

Forecaster + receipts --> RunMeasure --> forecast, actual, error in run.json; paces in run.json and the cache
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from sdbatch.checkpoints import ModelInfo
from sdbatch.dispatch.fleet import Fleet
from sdbatch.driver.predicted.costs import Costs
from sdbatch.driver.predicted.paces import Paces, device_of, identity_of, remember
from sdbatch.driver.predicted.work import Forecaster, Work, wall_of
from sdbatch.job import Job
from sdbatch.types import Receipt, Unit

REMEMBERED_EVERY_S: Final = 60.0
"""So often a run adds to the user's cache what it measured, so that a killed driver loses little."""


class RunMeasure:
    """Measures one run.

    Args:
        job: The job.
        models: Description of each of its models.
        forecaster: Says, as the run began, how long outputs take.
        work: What the run set out to render.
    """

    def __init__(self, job: Job, models: Mapping[str, ModelInfo], forecaster: Forecaster, work: Work) -> None:
        self._job = job
        self._forecaster = forecaster
        self._work = work
        self._identities = {name: identity_of(info) for name, info in models.items()}
        self._expected_s: defaultdict[str, float] = defaultdict(float)
        self._actual_s: defaultdict[str, float] = defaultdict(float)
        self._outputs: defaultdict[str, int] = defaultdict(int)
        self._paces = Paces()
        self._new = Paces()
        self._remembered_s = time.monotonic()

    def note(self, unit: Unit, receipt: Receipt, facts: Mapping[str, str]) -> None:
        """Note how long a unit took that was committed."""
        request = unit.requests[0]
        if receipt.rows_generated:
            predicted = self._forecaster.predict(unit.model, request.shape, request.cost_tflop)
            self._expected_s[unit.model] += predicted.seconds * receipt.rows_generated
            self._actual_s[unit.model] += receipt.generate_s
            self._outputs[unit.model] += receipt.rows_generated
        for paces in (self._paces, self._new):
            paces.add_unit(self._identities[unit.model], device_of(facts), unit, receipt)
        if time.monotonic() - self._remembered_s >= REMEMBERED_EVERY_S:
            self._remember()

    def end(self, fleet: Fleet | None) -> None:
        """Remember what was measured, for forecasts of any campaign."""
        if fleet is not None and fleet.starts_s:
            device = device_of(next(iter(fleet.facts.values()), {}))
            for paces in (self._paces, self._new):
                paces.add_starts(device, fleet.starts_s)
        self._remember()

    def record(self, wall_s: float, workers: int, slot_gpu_s: float) -> dict[str, Any]:
        """Return forecast, actual and error of each model and of the whole run.

        An error is forecast over actual, less 1: over 0 where the run took less. A model's compares the seconds of the
        outputs that were made; the run's own stand beside them, and are compared where everything was made.

        Args:
            wall_s: Seconds on the clock.
            workers: Most workers that were there at a time.
            slot_gpu_s: Time of workers times their GPUs.
        """
        models = {
            name: {
                "outputs": self._outputs[name],
                "forecast_s": round(self._expected_s[name], 3),
                "actual_s": round(self._actual_s[name], 3),
                "error": _error(self._expected_s[name], self._actual_s[name]),
            }
            for name in sorted(self._outputs)
        }
        record: dict[str, Any] = {"models": models, "basis": Costs(self._job, self._forecaster).basis(self._work)}
        if workers and self._work.outputs:
            wall = wall_of(self._job, self._work, self._forecaster, workers)
            is_whole = sum(self._outputs.values()) >= self._work.outputs.total()
            for name, forecast, actual in (("wall_s", wall.wall_s, wall_s), ("gpu_s", wall.slot_gpu_s, slot_gpu_s)):
                error = _error(forecast, actual) if is_whole else None
                record[name] = {"forecast": round(forecast, 3), "actual": round(actual, 3), "error": error}
        return record

    def paces(self) -> list[dict[str, Any]]:
        """Return what was measured, as it stands in a record."""
        return self._paces.as_list()

    def _remember(self) -> None:
        self._remembered_s = time.monotonic()
        if self._new.by_key:
            remember(self._new)
            self._new = Paces()


def _error(forecast: float, actual: float) -> float | None:
    return round(forecast / actual - 1, 4) if actual > 0 else None

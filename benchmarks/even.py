"""The same sleep for every row, as a worker and as a class for Ray Data. No torch here: many of them start at once."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import probe
from benchmarks.sleeping import NoopWorker
from sdbatch.types import Unit

ROW_S = 0.02


class EvenWorker(NoopWorker):
    """Sleeps equally long for every row, a batch at a time."""

    def _make(self, unit: Unit) -> float:
        for start in range(0, len(unit.requests), unit.batch_size):
            batch = unit.requests[start : start + unit.batch_size]
            self._on_call(unit.id, tuple(request.id for request in batch))
            _sleep(len(batch))
        return ROW_S * unit.num_outputs


class Sleeper:
    """The same as a class for map_batches."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Sleep; the rows go on as they came."""
        _sleep(len(batch["id"]))
        return batch


def _sleep(count: int) -> None:
    begin_s = time.time()
    time.sleep(ROW_S * count)
    probe.note("call", begin_s, count)

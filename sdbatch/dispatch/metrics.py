"""Metrics of a run, published through Ray and scraped by Prometheus as `ray_<name>`.

    Receipt --> WorkerMetrics (in the actor)          Observation --> DriverMetrics (in the driver)

Names are a promise: dashboards are written over them. Busy share of a worker is the rate of its denoise and decode
seconds.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Final

from ray.util.metrics import Counter, Gauge

from sdbatch.types import STAGES, Observation, Receipt

_WORKER: Final = {
    "sdbatch_assets_total": ("Assets by how they ended.", ("status",)),
    "sdbatch_asset_bytes_total": ("Bytes of assets.", ()),
    "sdbatch_model_calls_total": ("Pipeline calls.", ()),
    "sdbatch_model_loads_total": ("Models loaded.", ()),
    "sdbatch_stage_seconds_total": ("Wall seconds by stage.", ("stage",)),
}
_DRIVER_COUNTERS: Final = {
    "sdbatch_rows_total": ("Manifest rows by how they ended.", ("status",)),
    "sdbatch_worker_deaths_total": ("Workers that died.", ()),
    "sdbatch_retries_total": ("Units handed out again.", ()),
}
_DRIVER_GAUGES: Final = {
    "sdbatch_workers": "Ready workers.",
    "sdbatch_units_in_flight": "Units handed out.",
    "sdbatch_assets_pending": "Assets still to be made in this run: the queue's depth.",
}
METRICS: Final = (*_WORKER, *_DRIVER_COUNTERS, *_DRIVER_GAUGES)


def _counters(table: Mapping[str, tuple[str, tuple[str, ...]]]) -> dict[str, Counter]:
    return {name: Counter(name, description=text, tag_keys=tags) for name, (text, tags) in table.items()}


class WorkerMetrics:
    """Counts what one worker made."""

    def __init__(self) -> None:
        self._counters = _counters(_WORKER)

    def add(self, receipt: Receipt) -> None:
        """Count a receipt."""
        ended = collections.Counter[str](outcome.status for outcome in receipt.outcomes)
        ended["ok"] = receipt.assets_put + receipt.assets_adopted
        for status, number in ended.items():
            self._add("sdbatch_assets_total", number, {"status": status})
        self._add("sdbatch_asset_bytes_total", receipt.asset_bytes)
        self._add("sdbatch_model_calls_total", receipt.model_calls)
        self._add("sdbatch_model_loads_total", int(receipt.load_s > 0))
        for stage in STAGES:
            self._add("sdbatch_stage_seconds_total", receipt.stage_s.get(stage, 0.0), {"stage": stage})

    def _add(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        if value > 0:  # a counter refuses 0
            self._counters[name].inc(value, tags=tags or {})


class DriverMetrics:
    """Shows where the run stands."""

    def __init__(self) -> None:
        self._counters = _counters(_DRIVER_COUNTERS)
        self._gauges = {name: Gauge(name, description=text) for name, text in _DRIVER_GAUGES.items()}
        self._shown: dict[tuple[str, str], float] = {}

    def show(self, observation: Observation) -> None:
        """Set the gauges, and raise the counters to the observed totals."""
        self._gauges["sdbatch_workers"].set(observation.workers)
        self._gauges["sdbatch_units_in_flight"].set(observation.units_in_flight)
        self._gauges["sdbatch_assets_pending"].set(observation.assets_pending)
        self._raise("sdbatch_rows_total", observation.rows_ok, status="ok")
        self._raise("sdbatch_rows_total", observation.rows_failed, status="failed")
        self._raise("sdbatch_rows_total", observation.rows_reused, status="reused")
        self._raise("sdbatch_worker_deaths_total", observation.worker_deaths)
        self._raise("sdbatch_retries_total", observation.retries)

    def _raise(self, name: str, total: float, **tags: str) -> None:
        place = (name, tags.get("status", ""))
        step = total - self._shown.get(place, 0.0)
        if step > 0:
            self._counters[name].inc(step, tags=tags)
            self._shown[place] = total

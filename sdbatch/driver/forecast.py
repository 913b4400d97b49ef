"""What a run would do, and how long it would take; nothing is written.

ClassifiedRows + measured rates --> forecast() --> PlanReport
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from sdbatch.campaign import layout
from sdbatch.campaign.read import done_of, read_commit, read_index, read_json
from sdbatch.driver.scan import COUNTED, ResolvedManifest
from sdbatch.driver.select import Selection, check_selection, classify
from sdbatch.job import Job
from sdbatch.recipe import recipe_changes
from sdbatch.storage import Store, open_store

ASSUMED_TFLOP_PER_S = {"gpu": 200.0, "cpu": 0.03}
"""Rates until a run of the campaign has measured its own: a quarter of an H200's matrix rate, and one laptop core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a run would do.

    Attributes:
        rows: Manifest rows by what becomes of them: `new`, `changed`, `outputs` (more of them), `retry`, `reused`,
            `failed` (kept as failed) and `unselected`.
        changed: For changed rows, how many differ in each part of the recipe (`prompt`, `images`, `model`, ...).
        assets: Files it would make.
        assets_by_model: The same by model.
        predicted_gpu_s: Seconds in the model over all workers (of one core each where a model runs on CPUs).
        rate_measured: Whether the prediction rests on an earlier run of this campaign.
        sources_missing: Sources that are not there; their rows will fail.
        unpinned: Entries such as `models.sdxl` whose weights in a bucket are known by size and ETag only; `pin_models`
            returns the digests that pin them.
    """

    rows: dict[str, int]
    changed: dict[str, int] = field(default_factory=dict)
    assets: int = 0
    assets_by_model: dict[str, int] = field(default_factory=dict)
    predicted_gpu_s: float = 0.0
    rate_measured: bool = False
    sources_missing: list[str] = field(default_factory=list)
    unpinned: list[str] = field(default_factory=list)


def forecast(job: Job, selection: Selection) -> PlanReport:
    """Return what a run would make, and why.

    Raises:
        UserError: With everything that is wrong.
    """
    with closing(ResolvedManifest(job)) as manifest:
        check_selection(manifest, selection)
        store = open_store(job.output, job.storage)
        done = done_of(read_index(store))
        rates, is_measured = _rates(job, store)
        reasons: Counter[str] = Counter()
        assets: Counter[str] = Counter()
        changed: dict[str, str] = {}
        predicted_s = 0.0
        columns = [*COUNTED, *(["recipe"] if done.keys else [])]
        for part in classify(manifest.parts(columns), done, selection):
            reasons.update(part.reasons)
            models, costs_tflop = (part.rows.column(name).to_pylist() for name in ("model", "cost_tflop"))
            for model, cost_tflop, outputs in zip(models, costs_tflop, part.outputs, strict=True):
                if outputs:
                    assets[model] += len(outputs)
                    predicted_s += cost_tflop * len(outputs) / rates[model]
            changed.update((row["id"], row["recipe"]) for row in part.rows_for("changed").to_pylist())
        return PlanReport(
            rows=dict(reasons),
            changed=_changes(store, done.keys, changed),
            assets=assets.total(),
            assets_by_model=dict(assets),
            predicted_gpu_s=predicted_s,
            rate_measured=is_measured,
            sources_missing=list(manifest.scanned.sources_missing),
            unpinned=list(manifest.scanned.unpinned),
        )


def _rates(job: Job, store: Store) -> tuple[dict[str, float], bool]:
    """Return TFLOP a second of one worker by model, and whether the campaign's runs measured all of them."""
    paths = [entry.path for entry in store.list(layout.RUNS) if entry.path.endswith("/run.json")]
    measured: dict[str, float] = {}
    for path in sorted(paths):
        measured.update(read_json(store, path).get("rate_tflop_per_s", {}))
    rates = {
        name: measured.get(name, ASSUMED_TFLOP_PER_S["gpu" if model.num_gpus else "cpu"])
        for name, model in job.models.items()
    }
    return rates, rates.keys() <= measured.keys()


def _changes(store: Store, commits: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, int]:
    """Count in which parts of the recipe changed rows differ from their newest commit."""
    counts: Counter[str] = Counter()
    for commit in sorted({commits[request_id] for request_id in changed}):
        table = read_commit(store, commit, ["id", "recipe"])
        old = dict(zip(table.column("id").to_pylist(), table.column("recipe").to_pylist(), strict=True))
        for request_id, recipe in changed.items():
            if commits[request_id] == commit:
                counts.update(recipe_changes(old[request_id], recipe))
    return dict(sorted(counts.items()))

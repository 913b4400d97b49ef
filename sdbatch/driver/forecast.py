"""A forecast: the work of a run and how long it would take; nothing is written.

ClassifiedRows + measured rates --> forecast() --> PlanReport
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.done import Done
from sdbatch.campaign.leaving import Leaving
from sdbatch.campaign.read import read_commit
from sdbatch.driver.leaving import rows_leaving
from sdbatch.driver.memory import ModelMemory, memory_of
from sdbatch.driver.picking import Selection
from sdbatch.driver.scan import COUNTED, ResolvedManifest
from sdbatch.driver.select import check_selection, classify
from sdbatch.driver.shared_keys import Sharing
from sdbatch.errors import grouped
from sdbatch.job import Job, Model
from sdbatch.recipe import recipe_changes
from sdbatch.storage import Store, open_campaign

ASSUMED_TFLOP_PER_S = {"gpu": 200.0, "cpu": 0.03}
"""Rates until a run of the campaign has measured its own: a quarter of an H200's matrix rate, and one laptop core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The forecast of a run.

    Attributes:
        rows: Manifest rows by what becomes of them: `new`, `changed`, `outputs` (more of them), `retry`, `reused`,
            `failed` (kept as failed) and `unselected`.
        changed: For changed rows, how many differ in each part of the recipe (`prompt`, `images`, `model`, ...).
        assets: Files it would make.
        copies: Those of them that are copies of another id's file, or of one that an earlier run made.
        assets_by_model: The same by model.
        predicted_gpu_s: Seconds in the model times the GPUs of a worker's slot, where none or a null counts as one.
        predicted_wall_s: The same on the clock, where the job says how many workers there are; else None.
        assumed_gpus: Models whose `num_gpus` is null and whose rate was not measured: a GPU's was assumed.
        rate_measured: Whether the prediction rests on an earlier run of this campaign.
        sources_missing: Sources that are not there; their rows will fail.
        unpinned: Entries such as `models.sdxl` whose weights in a bucket are known by size and ETag only; `pin_models`
            returns the digests that pin them.
        rows_leaving: Rows of the campaign that the manifest does not have; their assets stay.
        memory: What each model that has rows takes for the largest of them, and the card it needs.
        warnings: What a person should know before the run, equal warnings about rows together.
        notes: How the manifest's table was read where that is not written in it.
    """

    rows: dict[str, int]
    changed: dict[str, int] = field(default_factory=dict)
    assets: int = 0
    copies: int = 0
    assets_by_model: dict[str, int] = field(default_factory=dict)
    predicted_gpu_s: float = 0.0
    predicted_wall_s: float | None = None
    assumed_gpus: list[str] = field(default_factory=list)
    rate_measured: bool = False
    sources_missing: list[str] = field(default_factory=list)
    unpinned: list[str] = field(default_factory=list)
    rows_leaving: int = 0
    memory: list[ModelMemory] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def forecast(job: Job, selection: Selection) -> PlanReport:
    """Return what a run would make, and why.

    Raises:
        UserError: With everything that is wrong.
    """
    check_selection(selection)
    with closing(ResolvedManifest(job, selection, loads_here=False, counts_tokens=True)) as manifest:
        store = open_campaign(job.output, job.storage)
        done, leaving = _done_and_leaving(manifest, store)
        rates, measured = measured_rates(job, store)
        reasons: Counter[str] = Counter()
        assets: Counter[str] = Counter()
        changed: dict[str, str] = {}
        slot_s: defaultdict[str, float] = defaultdict(float)
        num_rendered = 0
        sharing = Sharing(manifest.shared_keys(), done.origins)
        columns = [*COUNTED, *([] if done.is_empty else ["recipe"])]
        for part in classify(manifest.parts(columns), done, selection, manifest.scanned.stages_digest):
            reasons.update(part.reasons)
            models, costs_tflop = (part.rows.column(name).to_pylist() for name in ("model", "cost_tflop"))
            rendered = sharing.rendered(part.rows, sharing.count(part.rows, part.outputs))
            for model, cost_tflop, outputs, own in zip(models, costs_tflop, part.outputs, rendered, strict=True):
                if outputs:
                    assets[model] += len(outputs)
                    num_rendered += len(own)
                    slot_s[model] += cost_tflop * len(own) / rates[model]
            changed.update((row["id"], row["recipe"]) for row in part.rows_for("changed").to_pylist())
        return PlanReport(
            rows=dict(reasons),
            changed=_changes(store, done, changed),
            assets=assets.total(),
            copies=assets.total() - num_rendered,
            assets_by_model=dict(assets),
            predicted_gpu_s=sum(slot_s[name] * job.models[name].slot_gpus for name in slot_s),
            predicted_wall_s=_wall_s(job, slot_s),
            assumed_gpus=sorted(name for name in slot_s if job.models[name].num_gpus is None and name not in measured),
            rate_measured=rates.keys() <= measured,
            sources_missing=list(manifest.scanned.sources_missing),
            unpinned=list(manifest.scanned.unpinned),
            rows_leaving=leaving.num_rows,
            memory=[memory_of(manifest.scanned.models[name], sizes) for name, sizes in manifest.scanned.sizes.items()],
            warnings=[*([str(leaving)] if leaving.num_rows else []), *grouped(manifest.scanned.warnings)],
            notes=list(manifest.scanned.notes),
        )


def _done_and_leaving(manifest: ResolvedManifest, store: Store) -> tuple[Done, Leaving]:
    """Return what is done, and the rows that leave; the history is read once, and not kept."""
    history = Campaign(store).history()
    return Done(history), rows_leaving(manifest, store, lambda: history)


def measured_rates(job: Job, store: Store) -> tuple[dict[str, float], frozenset[str]]:
    """Return TFLOP a second of one worker by model, and the models whose rate the campaign's runs measured."""
    measured = Campaign(store).rates_tflop_per_s(job.models)
    rates = {name: measured.get(name) or assumed_rate(model) for name, model in job.models.items()}
    return rates, frozenset(measured)


def assumed_rate(model: Model) -> float:
    """Return TFLOP a second of one worker of which nothing was measured.

    `num_gpus: null` is one GPU where the cluster has any. A plan asks no cluster, and takes it for one GPU.
    """
    return ASSUMED_TFLOP_PER_S["cpu" if model.num_gpus == 0 else "gpu"]


def _wall_s(job: Job, slot_s: Mapping[str, float]) -> float | None:
    """Return how long the longest pool of workers takes; None where the number of workers is not stated."""
    if not isinstance(job.workers.count, int):
        return None
    count = min(job.workers.count, job.workers.max)
    pools: defaultdict[tuple[object, ...], float] = defaultdict(float)
    for name, seconds in slot_s.items():
        pools[job.models[name].slot] += seconds / count
    return max(pools.values(), default=0.0)


def _changes(store: Store, done: Done, changed: Mapping[str, str]) -> dict[str, int]:
    """Count in which parts of the recipe changed rows (recipes by id) differ from their newest commit."""
    by_commit: dict[str, list[str]] = {}
    for request_id, commit in zip(changed, done.newest_commits(pa.array(list(changed), pa.string())), strict=True):
        if commit:
            by_commit.setdefault(commit, []).append(request_id)
    counts: Counter[str] = Counter()
    for commit, ids in sorted(by_commit.items()):
        table = read_commit(store, commit, ["id", "recipe"])
        old = dict(zip(table.column("id").to_pylist(), table.column("recipe").to_pylist(), strict=True))
        for request_id in ids:
            counts.update(recipe_changes(old[request_id], changed[request_id]))
    return dict(sorted(counts.items()))

"""A forecast: the work of a run and how long it would take; nothing is written.

ClassifiedRows + measured rates --> forecast() --> PlanReport
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.done import Done
from sdbatch.campaign.leaving import Leaving
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.spending import HOUR_S, spending_before
from sdbatch.driver.one_run.leaving import rows_leaving
from sdbatch.driver.one_run.meeting_seeds import MeetingSeeds
from sdbatch.driver.one_run.rerolls import review_lines
from sdbatch.driver.one_run.select import check_selection, classify, columns_for
from sdbatch.driver.picking import Selection
from sdbatch.driver.predicted.budget import RunBudget
from sdbatch.driver.predicted.costs import Costs, Grouping, Made, WallForecast, WorkForecast, forecaster_of
from sdbatch.driver.predicted.memory import ModelMemory, memory_of
from sdbatch.driver.rows.scan import COUNTED, ResolvedManifest
from sdbatch.driver.rows.shared_keys import Sharing
from sdbatch.driver.rows.tables import ManifestHere
from sdbatch.errors import grouped
from sdbatch.job import Job
from sdbatch.plan.shape import task_of
from sdbatch.recipe import recipe_changes
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store, open_campaign

WAITING_SHOWN = 1000
"""Outputs that rows wait for and that a forecast names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The forecast of a run.

    Attributes:
        rows: Manifest rows by what becomes of them: `new`, `changed`, `outputs` (more of them), `retry`, `reused`,
            `reroll` (unwanted outputs replaced), `failed` (kept as failed), `waiting` (for an output of the campaign),
            `withdrawn` (taken down, or a source of theirs was) and `unselected`.
        changed: For changed rows, how many differ in each part of the recipe (`prompt`, `images`, `model`, ...).
        assets: Files it would make.
        copies: Those of them that are copies of another id's file, or of one that an earlier run made.
        assets_by_model: The same by model.
        predicted_gpu_s: Seconds in the model times the GPUs of a worker's slot, where none or a null counts as one.
        predicted_wall_s: Seconds on the clock, where the job says how many workers there are; else None.
        gpu_hours: `predicted_gpu_s` in hours.
        currency: Of every `cost`; None where the job has no prices.
        walls: What the run takes on 1, on 4 and on the job's own number of workers.
        by_model: What each model's outputs take.
        by_task: What each task's outputs take.
        by: What rows take that are alike in the columns that were asked for, the most first.
        basis: Shares of `predicted_gpu_s`: `measured` (outputs of the same model, shape and device), `rate` (other
            shapes of the model) and `assumed`.
        devices: Device that each model was measured on.
        budget: What a budget of the job leaves for the run, as a sentence for each.
        assumed_gpus: Models whose `num_gpus` is null and whose rate was not measured: a GPU's was assumed.
        rate_measured: Whether nothing of the prediction rests on an assumed rate.
        sources_missing: Sources that are not there; their rows will fail.
        unpinned: Entries such as `models.sdxl` whose weights in a bucket are known by size and ETag only; `pin_models`
            returns the digests that pin them.
        rows_leaving: Rows of the campaign that the manifest does not have; their assets stay.
        outputs_waiting: Rejected and blocked outputs that wait for `--reroll`.
        outputs_given_up: Outputs that are wanted and have no number left below the bound of `limits.rerolls`.
        memory: What each model that has rows takes for the largest of them, and the card it needs.
        warnings: What a person should know before the run, equal warnings about rows together.
        notes: How the manifest's table was read where that is not written in it.
        waiting: Rows that wait, by the output they wait for, such as `asset:hero/0`: the commonest, at most so many as
            `WAITING_SHOWN`.
    """

    rows: dict[str, int]
    changed: dict[str, int] = field(default_factory=dict)
    assets: int = 0
    copies: int = 0
    assets_by_model: dict[str, int] = field(default_factory=dict)
    predicted_gpu_s: float = 0.0
    predicted_wall_s: float | None = None
    gpu_hours: float = 0.0
    currency: str | None = None
    walls: list[WallForecast] = field(default_factory=list)
    by_model: list[WorkForecast] = field(default_factory=list)
    by_task: list[WorkForecast] = field(default_factory=list)
    by: list[WorkForecast] = field(default_factory=list)
    basis: dict[str, float] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    budget: list[str] = field(default_factory=list)
    assumed_gpus: list[str] = field(default_factory=list)
    rate_measured: bool = False
    sources_missing: list[str] = field(default_factory=list)
    unpinned: list[str] = field(default_factory=list)
    rows_leaving: int = 0
    outputs_waiting: int = 0
    outputs_given_up: int = 0
    memory: list[ModelMemory] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)


def forecast(
    job: Job, selection: Selection, by: Sequence[str] = (), *, built: ManifestHere | None = None
) -> PlanReport:
    """Return what a run would make, and why.

    Args:
        job: The job.
        selection: Which rows.
        by: Columns of the manifest to tell the forecast by.
        built: Rows that are made beside those of the job's manifest, so that none leaves because of them.

    Raises:
        UserError: With everything that is wrong.
    """
    check_selection(selection)
    with closing(ResolvedManifest(job, selection, loads_here=False, counts_tokens=True, built=built)) as manifest:
        grouping = Grouping(manifest, by)
        store = open_campaign(job.output, job.storage)
        done, leaving = (
            (Campaign(store).done(read_verdicts(store)), Leaving()) if built else _done_and_leaving(manifest, store)
        )
        forecaster = forecaster_of(job, manifest.scanned.models, store)
        reasons: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        made = Made()
        changed: dict[str, str] = {}
        sharing = Sharing(manifest.shared_keys(), done.origins)
        columns = [*COUNTED, *grouping.columns, *([] if done.is_empty else ["recipe"])]
        parts = manifest.parts(list(dict.fromkeys(columns_for(done, columns))))
        num_waiting = num_lacking = 0
        meeting = MeetingSeeds()
        stages, rerolls = manifest.scanned.stages_digest, job.limits.rerolls
        for part in classify(parts, done, selection, stages, rerolls):
            reasons.update(part.counts)
            num_waiting, num_lacking = num_waiting + part.num_waiting, num_lacking + part.num_given_up
            waiting.update(part.waiting)
            pending = part.pending()
            asked = sharing.count(pending.rows, pending.outputs, pending.replaces)
            made.add(pending.rows, pending.outputs, sharing.rendered(pending.rows, asked), grouping)
            for row, further in part.further.items():
                meeting.add(part.rows.column("id")[row].as_py(), part.rows.column("recipe")[row].as_py(), further)
            changed.update((row["id"], row["recipe"]) for row in part.rows_for("changed").to_pylist())
        costs = Costs(job, forecaster)
        walls = costs.walls(made.work)
        basis = costs.basis(made.work)
        gpu_s = costs.gpu_s(made.work)
        names = {model for model, _ in made.work.outputs}
        return PlanReport(
            rows=dict(reasons),
            changed=_changes(store, done, changed),
            assets=made.assets.total(),
            copies=made.assets.total() - made.work.outputs.total(),
            assets_by_model=made.assets_by_model,
            predicted_gpu_s=gpu_s,
            predicted_wall_s=costs.own_wall_s(walls),
            gpu_hours=gpu_s / HOUR_S,
            currency=job.prices.currency if job.prices else None,
            walls=walls,
            by_model=costs.told(made, lambda model, _: {"model": model}),
            by_task=costs.told(made, lambda _, shape: {"task": task_of(shape)}),
            by=costs.told_by(made, by) if by else [],
            basis=basis,
            devices={name: device for name, device in forecaster.devices.items() if name in names},
            budget=_budget_told(job, store),
            assumed_gpus=sorted(
                name for name in names if job.models[name].num_gpus is None and not forecaster.pace(name).is_measured
            ),
            rate_measured=not basis["assumed"],
            sources_missing=list(manifest.scanned.sources_missing),
            unpinned=list(manifest.scanned.unpinned),
            rows_leaving=leaving.num_rows,
            outputs_waiting=num_waiting,
            outputs_given_up=num_lacking,
            memory=[memory_of(manifest.scanned.models[name], sizes) for name, sizes in manifest.scanned.sizes.items()],
            warnings=[
                *([str(leaving)] if leaving.num_rows else []),
                *review_lines(num_waiting, num_lacking, rerolls),
                *meeting.line(manifest.parts(["id", "recipe", "num_outputs"])),
                *grouped(manifest.scanned.warnings),
            ],
            notes=list(manifest.scanned.notes),
            waiting=dict(waiting.most_common(WAITING_SHOWN)),
        )


def _budget_told(job: Job, store: Store) -> list[str]:
    """Return what each budget of a job leaves, as a sentence."""
    if not job.limits.is_budgeted:
        return []
    return RunBudget(job, spending_before(store, layout.AFTER_ALL_RUNS)).told()


def _done_and_leaving(manifest: ResolvedManifest, store: Store) -> tuple[Done, Leaving]:
    """Return what is done, and the rows that leave; the history is read once, and not kept."""
    history = Campaign(store).history()
    return Done(history, store, read_verdicts(store)), rows_leaving(manifest, store, lambda: history)


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

"""The verbs, as functions: plain values and Arrow tables in and out. The command line only prints what they return.

    check -> plan -> run, submit -> status, cancel, metadata, verify, gc, reproduce, report, redo
    build_manifest, list_models

A job is a path, a mapping or a `Job`. A campaign is its URL, or a job (path of a `.yaml`, or `Job`) whose output it is.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.gc import OLDER_THAN_S, GcReport, collect_garbage
from sdbatch.campaign.lease import ask_to_stop, is_gone
from sdbatch.campaign.read import done_of, effective_parts, latest_run, read_commit, read_index, read_json
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.verify import VerifyReport, verify_campaign
from sdbatch.checkpoints import BUILTINS, SHIPPED, ModelInfo, describe
from sdbatch.driver import (
    COUNTED,
    ResolvedManifest,
    RunResult,
    Selection,
    check_selection,
    classify,
    run_job,
    scan,
    write_gallery,
)
from sdbatch.errors import JobError
from sdbatch.families import is_clip
from sdbatch.families.listing import frame_rule
from sdbatch.job import Job, parse_job, read_job
from sdbatch.logs import looks_secret
from sdbatch.manifest.build import build_shards
from sdbatch.plan.checks import lacking
from sdbatch.recipe import recipe_changes
from sdbatch.report.progress import Progress, Silent
from sdbatch.storage import Store, joined, open_store, parse_url

if TYPE_CHECKING:
    from sdbatch.driver.reproduce import ReproduceReport

ASSUMED_TFLOP_PER_S = {"gpu": 200.0, "cpu": 0.03}
"""Until a run of the campaign has measured its own: a quarter of an H200's matrix rate, and one laptop core."""

JobLike = Job | str | Path | Mapping[str, Any]
Campaign = str | Path | Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """A job that can be run.

    Attributes:
        rows: Manifest rows.
        shards: Parquet files.
        assets: Files a full run makes.
        models: Family title by model name.
    """

    rows: int
    shards: int
    assets: int
    models: dict[str, str]


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
    """

    rows: dict[str, int]
    changed: dict[str, int] = field(default_factory=dict)
    assets: int = 0
    assets_by_model: dict[str, int] = field(default_factory=dict)
    predicted_gpu_s: float = 0.0
    rate_measured: bool = False
    sources_missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model folder.

    Attributes:
        name: In the job, or the builtin's.
        path: Where it lies.
        family: Title.
        tasks: It serves here and now.
        lacking: What it would serve besides, and which folder or Python package that lacks.
        height: Native, pixels.
        width: Native, pixels.
        size_multiple: Of height and width.
        frame_rule: Frames of its clips; "" where it makes none.
        num_frames: Of its clips by default.
        fps: Of its clips by default.
        schedulers: Class names a row may ask for.
        dtype: Numbers it is run in.
    """

    name: str
    path: str
    family: str
    tasks: list[str]
    lacking: list[str]
    height: int
    width: int
    size_multiple: int
    frame_rule: str
    num_frames: int | None
    fps: float | None
    schedulers: list[str]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReport:
    """A job on a cluster.

    Attributes:
        submission_id: Ray's name for it.
        is_new: Whether this call started it; else it was running already and was followed.
        output: The campaign.
        exit_code: The driver's; None when it was not waited for.
    """

    submission_id: str
    is_new: bool
    output: str
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """A manifest that was built.

    Attributes:
        rows: Written.
        files: Shards.
    """

    rows: int
    files: list[str]


def load_job(job: JobLike, overrides: Iterable[str] = (), date: str | None = None) -> Job:
    """Return a checked job.

    Args:
        job: The job.
        overrides: `key.key=value` each.
        date: What `${date}` in the manifest's path stands for; see `sdbatch.job.read_job`.

    Raises:
        JobError: Naming every key that is wrong.
    """
    if isinstance(job, Job):
        return parse_job(job.model_dump(mode="json"), tuple(overrides)) if overrides else job
    if isinstance(job, Mapping):
        return parse_job(dict(job), tuple(overrides), date=date)
    return read_job(job, tuple(overrides), date)


def check(job: JobLike, overrides: Iterable[str] = ()) -> CheckReport:
    """Check a job and every row of its manifest; nothing is written.

    Raises:
        UserError: With everything that is wrong.
    """
    found = scan(load_job(job, overrides))
    return CheckReport(
        rows=found.num_rows,
        shards=found.num_shards,
        assets=found.num_outputs,
        models={name: model.family.title for name, model in found.models.items()},
    )


def plan(job: JobLike, selection: Selection | None = None, overrides: Iterable[str] = ()) -> PlanReport:
    """Say what a run would make, and why; nothing is written.

    Raises:
        UserError: With everything that is wrong.
    """
    checked = load_job(job, overrides)
    resolved_manifest = ResolvedManifest(checked)
    try:
        check_selection(resolved_manifest, selection or Selection())
        store = open_store(checked.output, checked.storage)
        done = done_of(read_index(store))
        rates, is_measured = _rates(checked, store)
        reasons: Counter[str] = Counter()
        assets: Counter[str] = Counter()
        changed: dict[str, str] = {}
        predicted_s = 0.0
        columns = [*COUNTED, *(["recipe"] if done.keys else [])]
        for part in classify(resolved_manifest.parts(columns), done, selection or Selection()):
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
            sources_missing=list(resolved_manifest.scanned.sources_missing),
        )
    finally:
        resolved_manifest.close()


def run(
    job: JobLike,
    selection: Selection | None = None,
    overrides: Iterable[str] = (),
    *,
    in_process: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Make what is missing of a campaign.

    Args:
        job: The job.
        selection: Which rows; all by default.
        overrides: `key.key=value` each.
        in_process: One worker in this process instead of a Ray cluster: for breakpoints and tests.
        progress: Shown while it runs; nothing by default.

    Raises:
        UserError: Before anything was started.
        CampaignHeld: When another driver holds the campaign.
    """
    return run_job(
        load_job(job, overrides),
        selection=selection or Selection(),
        in_process=in_process,
        progress=progress or Silent(),
    )


def status(campaign: Campaign) -> dict[str, Any]:
    """Return the newest run's `status.json`; its state is `dead` when the driver ran here and its process is gone.

    Raises:
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    paths = [entry.path for entry in store.list(layout.RUNS) if entry.path.endswith("/status.json")]
    if not paths:
        raise JobError(f"{store.url}: no run there")
    found = read_json(store, max(paths))
    if found["state"] == "running" and is_gone(store):
        found["state"] = "dead"
    return found


def metadata(campaign: Campaign) -> pa.Table:
    """Return the effective metadata of the newest run's manifest, in its order; also while a run is going on.

    Raises:
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    run_id = _latest_run(store)
    parts = list(effective_parts(store, run_id, read_index(store)))
    return pa.concat_tables(parts, promote_options="default") if parts else METADATA.empty_table()


def verify(campaign: Campaign, sample: float | None = None) -> VerifyReport:
    """Compare commits, metadata and assets; see `sdbatch.campaign.verify`.

    Args:
        campaign: The campaign.
        sample: Hash only so many assets (int), or that share of them (float up to 1.0); all by default.

    Raises:
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    _latest_run(store)
    return verify_campaign(store, sample)


def gc(campaign: Campaign, *, delete: bool = False, older_than_s: float = OLDER_THAN_S) -> GcReport:
    """Find, and with `delete` remove, what no commit names; see `sdbatch.campaign.gc`.

    Args:
        campaign: The campaign.
        delete: Remove what was found.
        older_than_s: What changed within so many seconds stays.

    Raises:
        CampaignHeld: When a driver holds the campaign and something is to be removed.
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    _latest_run(store)
    return collect_garbage(store, older_than_s=older_than_s, delete=delete)


def reproduce(
    campaign: Campaign, request_id: str, n: int = 0, *, model_path: str | None = None, tolerance: int = 1
) -> ReproduceReport:
    """Render one asset again from its metadata alone; say how far it is from the stored one. Writes nothing there.

    Args:
        campaign: The campaign.
        request_id: Id of the request.
        n: Output number.
        model_path: Where the model lies now; without it, where the asset's run found it.
        tolerance: Largest difference of an 8 bit value that counts as equal.

    Raises:
        UserError: When there is no such asset.
        MachineError: When the model is not there, or no longer the one it was.
    """
    from sdbatch.driver.reproduce import reproduce_asset

    return reproduce_asset(_store(campaign), request_id, n, model_path=model_path, tolerance=tolerance)


def report(campaign: Campaign) -> str:
    """Write the gallery anew from what is committed now; return its URL.

    Raises:
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    run_id = _latest_run(store)
    index = read_index(store)
    num_rows = sum(part.num_rows for part in effective_parts(store, run_id, index))
    write_gallery(store, run_id, index, num_rows)
    return joined(store.url, layout.GALLERY)


def redo(
    job: JobLike,
    ids: Iterable[str] = (),
    overrides: Iterable[str] = (),
    *,
    in_process: bool = False,
    progress: Progress | None = None,
) -> RunResult | None:
    """Make assets again that are missing or damaged; those that are whole stay.

    Args:
        job: The job.
        ids: Only these requests; all that `verify` finds by default.
        overrides: `key.key=value` each.
        in_process: See `run`.
        progress: See `run`.

    Returns:
        The run, or None when nothing is missing or damaged.

    Raises:
        UserError: Before anything was started.
    """
    checked = load_job(job, overrides)
    store = open_store(checked.output, checked.storage)
    _latest_run(store)
    wanted = frozenset(ids)
    if unknown := wanted - set(read_index(store, []).column("id").to_pylist()):
        raise JobError(f"redo {min(unknown)}: nothing was ever committed for this id")
    findings = [
        finding
        for finding in verify_campaign(store).findings
        if finding.kind in {"missing", "damaged"} and (not wanted or finding.id in wanted)
    ]
    if not findings:
        return None
    void = [{"id": f.id, "request_key": f.request_key, "n": f.n} for f in findings]
    damaged = tuple(finding.asset for finding in findings if finding.kind == "damaged")
    return run_job(
        checked,
        selection=Selection(only=frozenset(finding.id for finding in findings)),
        in_process=in_process,
        progress=progress or Silent(),
        void=void,
        remove=damaged,
    )


def cancel(campaign: Campaign) -> str:
    """Ask the run that drives a campaign to stop, through the store alone; return who that is.

    It hands out nothing more, lets what is in flight end, and exits with 130; run again to go on.

    Raises:
        JobError: When nothing drives it.
    """
    store = _store(campaign)
    holder = ask_to_stop(store)
    if holder is None:
        raise JobError(f"{store.url}: nothing is running there")
    return holder


def submit(
    job: str | Path,
    address: str,
    overrides: Iterable[str] = (),
    *,
    date: str | None = None,
    working_dir: str | Path | None = ".",
    environment: Mapping[str, str] | None = None,
    accept_failed: bool = False,
    write: Callable[[str], None] | None = None,
) -> SubmitReport:
    """Run a job on a cluster through Ray's job server.

    Args:
        job: Job file; with a working directory, inside it.
        address: Of the job server, such as `http://head:8265`.
        overrides: `key.key=value` each.
        date: See `load_job`; fixed here, so that a retry after midnight makes the same.
        working_dir: Folder to send along; None when the cluster's image has the job file at the same path.
        environment: Variables of the driver there; what looks like a secret is refused.
        accept_failed: Exit 0 although rows failed.
        write: Given the job's log as it comes; without it the call does not wait.

    Raises:
        UserError: When the job is wrong, or would carry a secret.
        WorkersUnavailable: When the job server does not answer.
    """
    from sdbatch.dispatch.submit import Cluster, campaign_name, inside

    checked = load_job(job, overrides, date)
    for name, value in (environment or {}).items():
        if looks_secret(name, value):
            raise JobError(f"--env {name}: looks like a secret; the job server shows it to anybody")
    folder = None if working_dir is None else Path(working_dir)
    output = parse_url(checked.output).url
    arguments = ["sdbatch", "run", str(job) if folder is None else inside(Path(job), folder)]
    # A relative output would be taken from a folder on the head that is cleared away.
    kept = [override for override in overrides if not override.startswith("output=")]
    for override in (*kept, f"output={output}"):
        arguments += ["--set", override]
    arguments += ["--date", date] if date else []
    arguments += ["--accept-failed"] if accept_failed else []
    cluster = Cluster(address)
    found = cluster.submit(shlex.join(arguments), campaign_name(output), folder, dict(environment or {}))
    exit_code = cluster.follow(found.submission_id, write) if write else None
    return SubmitReport(submission_id=found.submission_id, is_new=found.is_new, output=output, exit_code=exit_code)


def build_manifest(
    source: str | Path,
    folder: str | Path,
    *,
    shards: int = 1,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    id_format: str | None = None,
) -> BuildReport:
    """Build a manifest folder from CSV, TSV, JSONL or Parquet; see `sdbatch.manifest.build`."""
    rows, files = build_shards(Path(source), Path(folder), shards=shards, rename=rename, drop=drop, id_format=id_format)
    return BuildReport(rows=rows, files=[str(file) for file in files])


def list_models(job: JobLike | None = None, overrides: Iterable[str] = ()) -> list[ModelReport]:
    """Describe a job's models, or without a job the builtins. Reads no weights.

    Raises:
        ModelError: When a folder is missing or of no known family.
    """
    if job is None:
        builtin = {name: {"path": f"builtin:{name}"} for name in (*SHIPPED, *BUILTINS)}
        checked = parse_job({"manifest": ".", "output": ".", "models": builtin})
    else:
        checked = load_job(job, overrides)
    found = [describe(name, model, checked.storage, with_revision=False) for name, model in checked.models.items()]
    return [_model_report(model) for model in found]


def _model_report(model: ModelInfo) -> ModelReport:
    family = model.family
    defaults = {**family.defaults, **model.defaults}
    lacks = {(task, row.pipeline): lacking(row, model) for task, rows in family.tasks.items() for row in rows}
    tasks = list(dict.fromkeys(task for (task, _), reasons in lacks.items() if not reasons))
    return ModelReport(
        name=model.name,
        path=model.path,
        family=family.title,
        tasks=tasks,
        lacking=[f"{task} ({pipeline}) {'; '.join(reasons)}" for (task, pipeline), reasons in lacks.items() if reasons],
        height=model.height,
        width=model.width,
        size_multiple=family.size_multiple,
        frame_rule=frame_rule(family) if any(map(is_clip, tasks)) else "",
        num_frames=defaults.get("num_frames"),
        fps=defaults.get("fps"),
        schedulers=list(family.schedulers),
        dtype=model.options.dtype,
    )


def _latest_run(store: Store) -> str:
    run_id = latest_run(store)
    if run_id is None:
        raise JobError(f"{store.url}: no run there")
    return run_id


def _store(campaign: Campaign) -> Store:
    if isinstance(campaign, str | Path) and str(campaign).endswith((".yaml", ".yml")):
        campaign = read_job(campaign)
    if isinstance(campaign, Job):
        return open_store(campaign.output, campaign.storage)
    return open_store(str(campaign), {})


def _rates(job: Job, store: Store) -> tuple[dict[str, float], bool]:
    """Return TFLOP a second of one worker by model: measured by the campaign's newest run, else assumed."""
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
    """Count in what changed rows differ from their newest commit."""
    counts: dict[str, int] = {}
    for commit in sorted({commits[request_id] for request_id in changed}):
        table = read_commit(store, commit, ["id", "recipe"])
        old = dict(zip(table.column("id").to_pylist(), table.column("recipe").to_pylist(), strict=True))
        for request_id, recipe in changed.items():
            if commits[request_id] == commit:
                for name in recipe_changes(old[request_id], recipe):
                    counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))

"""The verbs, as functions: plain values and Arrow tables in and out. The command line only prints what they return.

    check -> plan -> run, submit -> status, cancel, metadata, verify, gc, reproduce, report, redo, deliver
    build_manifest, count_brief, preview_brief, build_brief, list_models, pin_models

A job is a path, a mapping or a `Job`. A campaign is its URL, or a job (path of a `.yaml`, or `Job`) whose output it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign as CampaignFolder
from sdbatch.campaign.gc import OLDER_THAN_S, GcReport
from sdbatch.campaign.lease import ask_to_stop
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.verify import VerifyReport
from sdbatch.checkpoints import Pin, pins
from sdbatch.deliver.settings import Delivery, parse_delivery, read_delivery
from sdbatch.driver import PlanReport, RunResult, Selection, forecast, picked_rows, run_job, write_gallery
from sdbatch.driver.briefs import BriefCount, brief_counted, brief_preview
from sdbatch.driver.briefs import build_brief as driver_build_brief
from sdbatch.driver.check import CheckReport, check_job
from sdbatch.driver.models import ModelReport, describe_models, job_of_builtins
from sdbatch.driver.redo import redo_job
from sdbatch.driver.watching import failures_of, runs_of, watched
from sdbatch.errors import JobError
from sdbatch.extras import require
from sdbatch.job import Job, parse_job, read_job
from sdbatch.manifest.build import Built, build_shards
from sdbatch.report.progress import Progress, Silent
from sdbatch.storage import Store, joined, open_campaign

if TYPE_CHECKING:
    from sdbatch.driver.deliver_plan import DeliverReport
    from sdbatch.driver.reproduce import ReproduceReport
    from sdbatch.driver.submit import SubmitReport

JobLike = Job | str | Path | Mapping[str, Any]
Campaign = str | Path | Job


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """A manifest folder that was written.

    Attributes:
        rows: Rows in it.
        files: Its shards, in order.
        warnings: What its owner should know.
        notes: How the table was read where that is not written in it, such as its separator.
    """

    rows: int
    files: list[str]
    warnings: list[str]
    notes: list[str] = field(default_factory=list)


def load_job(
    job: JobLike, overrides: Iterable[str] = (), date: str | None = None, *, with_revisions: bool = True
) -> Job:
    """Return a checked job.

    Args:
        job: The job.
        overrides: `key.key=value` each.
        date: What `${date}` in the manifest's path stands for; see `sdbatch.job.read_job`.
        with_revisions: Whether stated revisions of models count; see `sdbatch.job.read_job`.

    Raises:
        JobError: Naming every key that is wrong.
    """
    if isinstance(job, Job):
        return parse_job(job.model_dump(mode="json"), tuple(overrides)) if overrides else job
    if isinstance(job, Mapping):
        return parse_job(dict(job), tuple(overrides), date=date, with_revisions=with_revisions)
    return read_job(job, tuple(overrides), date, with_revisions=with_revisions)


def check(
    job: JobLike, overrides: Iterable[str] = (), *, all_sources: bool = False, strict: bool = False
) -> CheckReport:
    """Check a job and every row of its manifest; nothing is written.

    Args:
        job: The job.
        overrides: `key.key=value` each.
        all_sources: Whether the headers of all remote sources are read, and not only a sample's.
        strict: Take warnings for errors.

    Raises:
        UserError: With everything that is wrong.
    """
    return check_job(load_job(job, overrides), all_sources=all_sources, strict=strict)


def plan(job: JobLike, selection: Selection | None = None, overrides: Iterable[str] = ()) -> PlanReport:
    """Return what a run would make, and why; nothing is written.

    Raises:
        UserError: With everything that is wrong.
    """
    return forecast(load_job(job, overrides), selection or Selection())


def run(
    job: JobLike,
    selection: Selection | None = None,
    overrides: Iterable[str] = (),
    *,
    in_process: bool = False,
    progress: Progress | None = None,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    yes: bool = False,
) -> RunResult:
    """Make what is missing of a campaign.

    Args:
        job: The job.
        selection: Which rows; all by default.
        overrides: `key.key=value` each.
        in_process: One worker in this process instead of a Ray cluster: for breakpoints and tests.
        progress: Shown while it runs; nothing by default.
        accept_new_keys: Render outputs again whose keys an older version of sdbatch made; refused otherwise.
        allow_open_ray: Use Ray without a token where RAY_AUTH_MODE=disabled says so; refused otherwise.
        yes: Let more rows of the campaign leave than `limits.leaving_fraction`; refused otherwise.

    Raises:
        UserError: Before anything was started.
        CampaignHeld: When another driver holds the campaign.
    """
    return run_job(
        load_job(job, overrides),
        selection=selection or Selection(),
        in_process=in_process,
        progress=progress or Silent(),
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        yes=yes,
    )


def status(campaign: Campaign) -> dict[str, Any]:
    """Return the newest run's `status.json`; its state is `dead` when the driver ran here and its process is gone.

    Raises:
        JobError: When the campaign has no run.
    """
    return CampaignFolder(_store(campaign)).status()


def watch(campaign: Campaign) -> Iterator[dict[str, Any]]:
    """Yield the newest run's status now and every two seconds until it has ended. See `status`."""
    yield from watched(_store(campaign))


def runs(campaign: Campaign, num_runs: int | None = None) -> list[dict[str, Any]]:
    """Return the newest runs of a campaign, or all, the newest first; see `sdbatch.driver.watching`.

    Raises:
        JobError: When the campaign has no run.
    """
    return runs_of(_store(campaign), num_runs)


def failures(campaign: Campaign, selection: Selection | None = None, error_type: str | None = None) -> pa.Table:
    """Return what failed of the newest run's manifest and is not made: one row for each output, or request as a whole.

    Args:
        campaign: The campaign.
        selection: Which of them, by the table's own columns; all by default.
        error_type: Only this class.

    Raises:
        JobError: When the campaign has no run.
    """
    return failures_of(_store(campaign), selection, error_type)


def metadata(campaign: Campaign, selection: Selection | None = None) -> pa.Table:
    """Return the effective metadata of the newest run's manifest, in its order; also while a run is going on.

    Args:
        campaign: The campaign.
        selection: Which rows, by the metadata's columns; all by default.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
    """
    parts = list(picked_rows(CampaignFolder(_store(campaign)).effective().parts(), selection or Selection()))
    return pa.concat_tables(parts, promote_options="default") if parts else METADATA.empty_table()


def verify(campaign: Campaign, sample: float | None = None) -> VerifyReport:
    """Compare commits, metadata and assets; see `sdbatch.campaign.verify`.

    Args:
        campaign: The campaign.
        sample: Hash only so many assets (int), or that share of them (float up to 1.0); all by default.

    Raises:
        JobError: When the campaign has no run.
    """
    folder = CampaignFolder(_store(campaign))
    folder.newest_run()
    return folder.verify(sample)


def gc(campaign: Campaign, *, delete: bool = False, older_than_s: float = OLDER_THAN_S) -> GcReport:
    """List, and with `delete` remove, the files that no commit names; see `sdbatch.campaign.gc`.

    Args:
        campaign: The campaign.
        delete: Remove them; without it they are only listed.
        older_than_s: Files that changed within so many seconds stay.

    Raises:
        CampaignHeld: When a driver holds the campaign and something is to be removed.
        JobError: When the campaign has no run.
    """
    folder = CampaignFolder(_store(campaign))
    folder.newest_run()
    return folder.collect_garbage(older_than_s=older_than_s, delete=delete)


def reproduce(
    campaign: Campaign,
    request_id: str,
    n: int = 0,
    *,
    job: JobLike | None = None,
    model_path: str | None = None,
    allow: Iterable[str] = (),
    tolerance: int = 1,
) -> ReproduceReport:
    """Render one asset again from its metadata alone; say how far it is from the stored one. Writes nothing there.

    Where models and sources lie, and how stores are reached, is never taken from the campaign, which a stranger may
    have made; builtins alone are known by their name.

    Args:
        campaign: The campaign.
        request_id: Id of the request.
        n: Output number.
        job: Your job: its models, `loras`, `storage` and `sources` hold. A campaign given as a job is one.
        model_path: Where the model lies now, before what the job says.
        allow: Prefixes that sources may be read from, beside the job's `sources.allow`.
        tolerance: Largest difference of an 8 bit value that counts as equal.

    Raises:
        UserError: When there is no such asset, or nobody says where its model and its sources lie.
        MachineError: When the model is not there, or no longer the one it was.
    """
    require("worker", "reproduce")
    from sdbatch.driver.reproduce import reproduce_asset
    from sdbatch.driver.trusted import Trust

    its_job = _job_of(campaign)
    own = its_job if job is None else load_job(job)
    store = open_campaign(its_job.output if its_job else str(campaign), own.storage if own else {})
    trust = Trust(job=own, model_path=model_path, allow=tuple(allow))
    return reproduce_asset(store, request_id, n, trust=trust, tolerance=tolerance)


def report(campaign: Campaign, selection: Selection | None = None) -> str:
    """Write the gallery anew from what is committed now; return its URL.

    Args:
        campaign: The campaign.
        selection: Which rows, by the metadata's columns; all by default. The next run writes all of them again.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
    """
    store = _store(campaign)
    run_id = CampaignFolder(store).newest_run()
    rows = CampaignFolder(store).effective(run_id)
    if selection is None or selection.is_of_all:
        write_gallery(store, run_id, rows.parts(thumbnails=True), rows.count())
    else:
        picked = list(picked_rows(rows.parts(thumbnails=True), selection))  # before a page is replaced
        write_gallery(store, run_id, picked, sum(part.num_rows for part in picked))
    return joined(store.url, layout.GALLERY)


def deliver(
    delivery: Delivery | str | Path | Mapping[str, Any],
    *,
    selection: Selection | None = None,
    dry_run: bool = False,
    prune: bool = False,
    progress: Progress | None = None,
) -> DeliverReport:
    """Make the files that a delivery asks for from a campaign's masters; those that are there already stay.

    Args:
        delivery: Path of its YAML file, its values, or a `Delivery`.
        selection: Make the files of these rows alone, by the metadata's columns; the other files stay as they are.
        dry_run: Say what would be made; write nothing.
        prune: Remove files of this delivery that it does not ask for any more.
        progress: Shown while it goes on; nothing by default.

    Raises:
        UserError: Before anything was made.
        MachineError: When this machine or a store fails; deliver again to go on.
    """
    from sdbatch.driver.deliver import deliver_files

    if isinstance(delivery, Mapping):
        delivery = parse_delivery(dict(delivery))
    elif isinstance(delivery, str | Path):
        delivery = read_delivery(delivery)
    return deliver_files(delivery, selection=selection, dry_run=dry_run, prune=prune, progress=progress or Silent())


def redo(
    job: JobLike,
    ids: Iterable[str] = (),
    overrides: Iterable[str] = (),
    *,
    selection: Selection | None = None,
    force: bool = False,
    in_process: bool = False,
    progress: Progress | None = None,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    yes: bool = False,
) -> RunResult | None:
    """Make assets again that are missing or damaged; those that are whole stay, unless they are forced.

    Args:
        job: The job.
        ids: Only these requests; all that `verify` finds by default.
        overrides: `key.key=value` each.
        selection: Only these rows of the manifest; all by default.
        force: Make whole assets of the named or picked requests again too.
        in_process: See `run`.
        progress: See `run`.
        accept_new_keys: See `run`.
        allow_open_ray: See `run`.
        yes: See `run`.

    Returns:
        The run, or None when nothing is missing or damaged.

    Raises:
        UserError: Before anything was started.
    """
    return redo_job(
        load_job(job, overrides),
        frozenset(ids),
        selection=selection or Selection(),
        force=force,
        in_process=in_process,
        progress=progress or Silent(),
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        yes=yes,
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
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    yes: bool = False,
    exclude: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
    write: Callable[[str], None] | None = None,
) -> SubmitReport:
    """Run a job on a cluster through Ray's job server.

    Args:
        job: Job file; with a working directory, inside it.
        address: URL of the job server, such as `http://head:8265`.
        overrides: `key.key=value` each.
        date: See `load_job`; fixed here, so that a retry after midnight makes the same.
        working_dir: Folder to send along; None when the cluster's image has the job file at the same path. What git
            ignores stays here, but for what the job names; names of secrets stay here in any case.
        environment: Variables of the driver there; what looks like a secret is refused.
        accept_failed: Exit 0 although rows failed.
        accept_new_keys: See `run`.
        allow_open_ray: See `run`.
        yes: See `run`.
        exclude: Further patterns of files that stay here, as lines of .gitignore.
        say: Told what is sent, before it is sent.
        write: Given the job's log as it comes; without it the call does not wait.

    Raises:
        UserError: When the job is wrong, or would carry a secret.
        WorkersUnavailable: When the job server does not answer.
    """
    require("ray", "submitting to a cluster")
    from sdbatch.driver.submit import submit_job

    overrides = tuple(overrides)

    return submit_job(
        job,
        load_job(job, overrides, date),
        address,
        overrides,
        date=date,
        working_dir=None if working_dir is None else Path(working_dir),
        environment=environment or {},
        accept_failed=accept_failed,
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        yes=yes,
        exclude=tuple(exclude),
        say=say or (lambda _: None),
        write=write,
    )


def build_manifest(
    source: str | Path,
    folder: str | Path,
    *,
    shards: int = 1,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    id_format: str | None = None,
    sheet: str | None = None,
    own: bool = False,
) -> BuildReport:
    """Build a manifest folder from CSV, TSV, a workbook, JSONL or Parquet; see `sdbatch.manifest.build`."""
    built = build_shards(
        Path(source), Path(folder), shards=shards, rename=rename, drop=drop, id_format=id_format, sheet=sheet, own=own
    )
    return _build_report(built)


def _build_report(built: Built) -> BuildReport:
    return BuildReport(
        rows=built.num_rows,
        files=[str(file) for file in built.files],
        warnings=list(built.warnings),
        notes=list(built.notes),
    )


def count_brief(brief: str | Path, job: JobLike | None = None, overrides: Iterable[str] = ()) -> BriefCount:
    """Count the rows of a brief without making them.

    Args:
        brief: The brief.
        job: The job whose default model says what sizes its formats need; without it sizes are not told.
        overrides: `key.key=value` each, of the job.

    Raises:
        UserError: With what is wrong.
    """
    return brief_counted(Path(brief), None if job is None else load_job(job, overrides))


def preview_brief(
    brief: str | Path, num_rows: int = 5, job: JobLike | None = None, overrides: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return some rows of a brief as its manifest will have them, spread over all values.

    Raises:
        UserError: With what is wrong.
    """
    return brief_preview(Path(brief), None if job is None else load_job(job, overrides), num_rows)


def build_brief(
    brief: str | Path,
    folder: str | Path,
    job: JobLike | None = None,
    overrides: Iterable[str] = (),
    *,
    shards: int = 1,
) -> BuildReport:
    """Build the manifest folder of a brief.

    Raises:
        UserError: With what is wrong.
    """
    own = None if job is None else load_job(job, overrides)
    built, _ = driver_build_brief(Path(brief), Path(folder), job=own, shards=shards)
    return _build_report(built)


def list_models(job: JobLike | None = None, overrides: Iterable[str] = ()) -> list[ModelReport]:
    """Describe a job's models, or without a job the builtins. Reads no weights.

    Raises:
        ModelError: When a folder is missing or of no known family.
    """
    return describe_models(job_of_builtins() if job is None else load_job(job, overrides))


def pin_models(job: JobLike, overrides: Iterable[str] = ()) -> list[Pin]:
    """Return the digest that pins each model, further folder and LoRA of a job. Reads every byte of them.

    Revisions that the job states do not count, so that a job can be pinned whose revisions are refused.

    Raises:
        UserError: When the job is wrong otherwise, or a folder is missing.
    """
    return list(pins(load_job(job, overrides, with_revisions=False)))


def _store(campaign: Campaign) -> Store:
    job = _job_of(campaign)
    return open_campaign(str(campaign), {}) if job is None else open_campaign(job.output, job.storage)


def _job_of(campaign: Campaign) -> Job | None:
    """Return the job that a campaign was given as; None where it is its URL."""
    if isinstance(campaign, Job):
        return campaign
    return read_job(campaign) if _is_job_file(campaign) else None


def _is_job_file(campaign: str | Path) -> bool:
    return str(campaign).endswith((".yaml", ".yml"))

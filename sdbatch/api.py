"""The verbs, as functions: plain values and Arrow tables in and out. The command line only prints what they return.

    init, check -> plan, plan_grid -> run, grid, submit -> status, watch, runs, failures, cancel, metadata, open_asset
    -> report, review -> deliver -> cost, verify, audit, trace, reproduce, redo, takedown, gc
    build_manifest, count_brief, preview_brief, build_brief, list_models, pin_models

A job is a path, a mapping or a `Job`. A campaign is its URL, or a job (path of a `.yaml`, or `Job`) whose output it is.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import pyarrow as pa
from pydantic import Field, InstanceOf

from sdbatch.arguments import Count, refuses_other_types
from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign as CampaignFolder
from sdbatch.campaign.gc import OLDER_THAN_S, GcReport
from sdbatch.campaign.lease import ask_to_stop
from sdbatch.campaign.schema import EFFECTIVE
from sdbatch.campaign.verify import VerifyReport
from sdbatch.checkpoints import Pin, pins
from sdbatch.deliver.settings import Delivery, parse_delivery, read_delivery
from sdbatch.desk.starter import write_starter
from sdbatch.driver.check import CheckReport, check_job
from sdbatch.driver.cost import CostReport, campaign_cost
from sdbatch.driver.forecast import PlanReport, forecast
from sdbatch.driver.gallery import told_of, write_gallery
from sdbatch.driver.judged import effective_rows, verify_with_decisions
from sdbatch.driver.models import ModelReport, describe_models, job_of_builtins
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection, picked_rows, texts_of
from sdbatch.driver.redo import redo_job
from sdbatch.driver.rows.briefs import BriefCount, brief_counted, brief_preview
from sdbatch.driver.rows.briefs import build_brief as driver_build_brief
from sdbatch.driver.run import run_job
from sdbatch.driver.watching import failures_of, runs_of, watched
from sdbatch.errors import JobError, UserError
from sdbatch.extras import require
from sdbatch.job import Job, parse_job, read_job, with_budget
from sdbatch.manifest.build import Built, build_shards
from sdbatch.report.progress import Progress, Silent
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store, joined, open_campaign
from sdbatch.verdicts import judged_files

if TYPE_CHECKING:
    from sdbatch.driver.audit import AuditReport
    from sdbatch.driver.delivery.plan import DeliverReport
    from sdbatch.driver.grids import GridReport
    from sdbatch.driver.reproduce import ReproduceReport
    from sdbatch.driver.review import ReviewReport
    from sdbatch.driver.submit import SubmitReport
    from sdbatch.driver.takedown import TakedownReport
    from sdbatch.driver.trace import TraceReport
    from sdbatch.driver.verify_delivery import DeliveryVerifyReport
    from sdbatch.encode.image import Picture

JobLike = InstanceOf[Job] | str | Path | InstanceOf[Mapping[str, Any]]
Campaign = str | Path | InstanceOf[Job]
Texts = str | Path | Iterable[str | Path]
"""Texts or paths, or one of them alone."""
Share = Annotated[float, Field(gt=0, le=1)]
"""A part of all."""


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


@refuses_other_types
def init(folder: str | Path) -> list[str]:
    """Write a folder to begin with: a brief, its tables and pictures, a job with a tiny model, a delivery.

    Args:
        folder: A folder that is not there yet, or an empty one.

    Returns:
        Names of the files in it.

    Raises:
        JobError: When the folder holds anything.
    """
    return write_starter(Path(folder))


@refuses_other_types
def load_job(job: JobLike, overrides: Texts = (), date: str | None = None, *, with_revisions: bool = True) -> Job:
    """Return a checked job.

    Args:
        job: The job.
        overrides: `key.key=value` each.
        date: What `${date}` in the manifest's path stands for, YYYY-MM-DD; by default SDBATCH_DATE, else today (UTC).
        with_revisions: Whether stated revisions of models count; False takes a job whose revisions are to be pinned.

    Raises:
        JobError: Naming every key that is wrong.
    """
    overrides = texts_of(overrides)
    if isinstance(job, Job):
        if date is not None:
            raise JobError(f"date {date!r}: the job was read before, and its manifest is {job.manifest_path}")
        # It may have been made by `model_copy(update=...)`, which checks nothing.
        values = {**dict(job), **job.model_dump(mode="json", warnings=False)}
        return parse_job(values, overrides, with_revisions=with_revisions)
    if isinstance(job, Mapping):
        return parse_job(dict(job), overrides, date=date, with_revisions=with_revisions)
    return read_job(job, overrides, date, with_revisions=with_revisions)


@refuses_other_types
def check(job: JobLike, overrides: Texts = (), *, all_sources: bool = False, strict: bool = False) -> CheckReport:
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


@refuses_other_types
def plan(job: JobLike, selection: Selection | None = None, overrides: Texts = (), *, by: Texts = ()) -> PlanReport:
    """Return what a run would make, why, and what it would take; nothing is written.

    Args:
        job: The job.
        selection: Which rows; all by default.
        overrides: `key.key=value` each.
        by: Columns of the manifest to tell the forecast by, such as `x_product`.

    Raises:
        UserError: With everything that is wrong.
    """
    return forecast(load_job(job, overrides), selection or Selection(), texts_of(by))


@refuses_other_types
def run(
    job: JobLike,
    selection: Selection | None = None,
    overrides: Texts = (),
    *,
    in_process: bool = False,
    progress: Progress | None = None,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
    yes: bool = False,
    budget: str | None = None,
) -> RunResult:
    """Make what is missing of a campaign.

    Args:
        job: The job.
        selection: Which rows; all by default.
        overrides: `key.key=value` each.
        in_process: One worker in this process instead of a Ray cluster: for breakpoints and tests.
        progress: Shown while it runs; nothing by default.
        accept_new_keys: Render outputs again whose keys an older version of sdbatch made; refused otherwise.
        allow_open_ray: Use a Ray cluster that asks for no token; it is refused otherwise.
        allow_code: Call functions that the job names, such as a watermark; refused otherwise.
        yes: Let more rows of the campaign leave than `limits.leaving_fraction`; refused otherwise.
        budget: Stop before so much is spent: `12.50`, `12.50EUR`, `3gpu_hours`, `40EUR/day`; over the job's own limit.

    Raises:
        UserError: Before anything was started.
        CampaignHeld: When another driver holds the campaign.
    """
    return run_job(
        _with_budget(load_job(job, overrides), budget),
        selection=selection or Selection(),
        in_process=in_process,
        progress=progress or Silent(),
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        allow_code=allow_code,
        yes=yes,
    )


def _with_budget(job: Job, budget: str | None) -> Job:
    return job if budget is None else with_budget(job, budget)


@refuses_other_types
def plan_grid(
    job: JobLike,
    x: str,
    y: str | None = None,
    overrides: Texts = (),
    *,
    only: Texts = (),
    name: str = "",
    budget: str | None = None,
) -> PlanReport:
    """Return what a grid would make, and why; nothing is written. See `grid`.

    Raises:
        UserError: With everything that is wrong.
    """
    from sdbatch.driver.grids import grid_of
    from sdbatch.driver.grids import plan_grid as driver_plan_grid

    return driver_plan_grid(_with_budget(load_job(job, overrides), budget), grid_of(x, y, texts_of(only), name))


@refuses_other_types
def grid(
    job: JobLike,
    x: str,
    y: str | None = None,
    overrides: Texts = (),
    *,
    only: Texts = (),
    name: str = "",
    in_process: bool = False,
    progress: Progress | None = None,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    budget: str | None = None,
    allow_code: bool = False,
) -> GridReport:
    """Render some rows of a job's manifest with every pair of values of two columns, and write a page of them.

    Args:
        job: The job.
        x: The columns of the grid: `guidance_scale=1,3,5`, or a list in YAML after the `=`.
        y: Its rows; None for one row.
        overrides: `key.key=value` each.
        only: Ids of the manifest's rows, or patterns such as `mug-*`; all by default.
        name: Folder of the page under `report/grids/`; made from the axes by default.
        in_process: See `run`.
        progress: See `run`.
        accept_new_keys: See `run`.
        allow_open_ray: See `run`.
        budget: See `run`.
        allow_code: See `run`.

    Raises:
        UserError: Before anything was started.
        CampaignHeld: When another driver holds the campaign.
    """
    from sdbatch.driver.grids import grid_of, make_grid

    return make_grid(
        _with_budget(load_job(job, overrides), budget),
        grid_of(x, y, texts_of(only), name),
        in_process=in_process,
        progress=progress or Silent(),
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        allow_code=allow_code,
    )


@refuses_other_types
def status(campaign: Campaign) -> dict[str, Any]:
    """Return the newest run's `status.json`; its state is `dead` when the driver ran here and its process is gone.

    What it says of the `campaign` is of the newest run that was no grid.

    Raises:
        JobError: When the campaign has no run.
    """
    folder = CampaignFolder(_store(campaign))
    status = folder.status()
    # A grid's rows stand beside the campaign's, and say nothing of it.
    return status if status.get("campaign") else {**status, "campaign": folder.standing()}


@refuses_other_types
def watch(campaign: Campaign) -> Iterator[dict[str, Any]]:
    """Yield the newest run's status now and every two seconds until it has ended. See `status`."""
    yield from watched(_store(campaign))


@refuses_other_types
def runs(campaign: Campaign, num_runs: Count | None = None) -> list[dict[str, Any]]:
    """Return the newest runs of a campaign, or all, the newest first; see `sdbatch.driver.watching`.

    Raises:
        JobError: When the campaign has no run.
    """
    return runs_of(_store(campaign), num_runs)


@refuses_other_types
def failures(campaign: Campaign, selection: Selection | None = None, error_type: str | None = None) -> pa.Table:
    """Return what failed of the newest run's manifest and is not made: one row for each output, or request as a whole.

    Args:
        campaign: The campaign.
        selection: Which of them, by the table's own columns; all by default.
        error_type: Only this class.

    Raises:
        JobError: When the campaign has no run, or there is no such class.
    """
    return failures_of(_store(campaign), _of_rows(selection), error_type)


@refuses_other_types
def metadata(campaign: Campaign, selection: Selection | None = None) -> pa.Table:
    """Return the effective metadata of the newest run's manifest, in its order; also while a run is going on.

    Args:
        campaign: The campaign.
        selection: Which rows, by the metadata's columns; all by default.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
    """
    parts = list(picked_rows(effective_rows(_store(campaign)).parts(), _of_rows(selection)))
    return pa.concat_tables(parts, promote_options="default") if parts else EFFECTIVE.empty_table()


@overload
def open_asset(
    campaign: Campaign,
    row: InstanceOf[Mapping[str, Any]] | str,
    n: int | None = None,
    *,
    as_type: Literal["image"] = ...,
) -> Picture: ...


@overload
def open_asset(
    campaign: Campaign, row: InstanceOf[Mapping[str, Any]] | str, n: int | None = None, *, as_type: Literal["bytes"]
) -> bytes: ...


@overload
def open_asset(
    campaign: Campaign, row: InstanceOf[Mapping[str, Any]] | str, n: int | None = None, *, as_type: Literal["path"]
) -> Path: ...


@refuses_other_types
def open_asset(
    campaign: Campaign,
    row: InstanceOf[Mapping[str, Any]] | str,
    n: int | None = None,
    *,
    as_type: Literal["image", "bytes", "path"] = "image",
) -> Picture | bytes | Path:
    """Return an asset, for notebooks: its stored file is compared with what was committed.

    Args:
        campaign: The campaign.
        row: A row of `metadata`, or an id. An id is looked up among all effective rows: for many assets take rows.
        n: Output number, with an id; its first effective output by default.
        as_type: `image` for Pillow's, of a clip the first frame; `bytes` for the file; `path` for a file on this
            machine, of a campaign in a bucket a copy that is removed when this process ends.

    Raises:
        UserError: When there is no such asset, it is gone, or another file is stored in its place.
    """
    from sdbatch.driver.open_asset import asset_bytes, asset_image, asset_path, asset_row

    if n is not None and isinstance(row, Mapping):
        raise JobError(f"n {n}: goes with an id; a row of the metadata says its own")
    store = _store(campaign)
    found = asset_row(store, row, n)
    if as_type == "bytes":
        return asset_bytes(store, found)
    if as_type == "path":
        return asset_path(store, found)
    return asset_image(store, found)


@refuses_other_types
def cost(campaign: Campaign, by: Texts = ()) -> CostReport:
    """Return what a campaign has cost, by columns; it adds up to what its runs recorded.

    Args:
        campaign: The campaign.
        by: Columns of the metadata, `run`, or x_* of the manifest.

    Raises:
        JobError: When the campaign has no run, or rows have no such column.
    """
    store = _store(campaign)

    def approved() -> frozenset[tuple[str, str, int, str]] | None:
        verdicts = read_verdicts(store)
        return None if verdicts.is_empty else judged_files(verdicts, "approved", "picked")

    return campaign_cost(store, texts_of(by), approved)


@refuses_other_types
def verify(campaign: Campaign, sample: Count | Share | None = None) -> VerifyReport:
    """Compare commits, metadata and assets; see `sdbatch.campaign.verify`.

    Args:
        campaign: The campaign.
        sample: Hash only so many assets (int), or that share of them (float up to 1.0); all by default.

    Raises:
        JobError: When the campaign has no run.
    """
    store = _store(campaign)
    CampaignFolder(store).newest_run()
    return verify_with_decisions(store, sample)


@refuses_other_types
def verify_delivery(target: str | Path, *, trust_file: str | Path | None = None) -> DeliveryVerifyReport:
    """Compare the files of a target with its table and its ledger; see `sdbatch.driver.verify_delivery`.

    Args:
        target: Folder, bucket or archive that a delivery made, or the delivery's YAML file.
        trust_file: Root certificates in PEM that are trusted.

    Raises:
        JobError: When no delivery made anything there, or the certificates cannot be read.
    """
    from sdbatch.driver.verify_delivery import place_of
    from sdbatch.driver.verify_delivery import verify_delivery as compare

    try:
        trust = "" if trust_file is None else Path(trust_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--trust {trust_file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return compare(*place_of(str(target)), trust)


@refuses_other_types
def is_delivery(place: str) -> bool:
    """Whether a place holds the table of a delivery, and not a campaign."""
    from sdbatch.driver.verify_delivery import is_place_of_delivery

    return is_place_of_delivery(place)


@refuses_other_types
def gc(
    campaign: Campaign,
    *,
    delete: bool = False,
    older_than_s: Annotated[float, Field(ge=0)] = OLDER_THAN_S,
    superseded: bool = False,
    delivered: Texts = (),
    even_approved: bool = False,
    even_delivered: bool = False,
) -> GcReport:
    """List, and with `delete` remove, the files that no commit names; see `sdbatch.campaign.gc`.

    Args:
        campaign: The campaign.
        delete: Remove them; without it they are only listed.
        older_than_s: Files that changed within so many seconds stay.
        superseded: Assets of older keys of rows that were edited go too.
        delivered: Targets of deliveries; the assets that files there were made from stay.
        even_approved: Superseded assets go also where somebody approved or picked them.
        even_delivered: Superseded assets go also where they were delivered.

    Raises:
        CampaignHeld: When a driver holds the campaign and something is to be removed.
        JobError: When the campaign has no run, superseded assets are to be removed and neither `delivered` nor
            `even_delivered` is said, or something is said of them and `superseded` is not.
    """
    from sdbatch.driver.superseded import check_told, keepers_of, refuse_alone

    targets = list(texts_of(delivered))
    if not superseded:
        refuse_alone(targets, even_approved=even_approved, even_delivered=even_delivered)
    store = _store(campaign)
    folder = CampaignFolder(store)
    folder.newest_run()
    if not superseded:
        return folder.collect_garbage(older_than_s=older_than_s, delete=delete)
    check_told(targets, delete=delete, even_delivered=even_delivered)
    return folder.collect_garbage(
        older_than_s=older_than_s,
        delete=delete,
        keeps=lambda: keepers_of(store, targets, even_approved=even_approved, even_delivered=even_delivered),
    )


@refuses_other_types
def reproduce(
    campaign: Campaign,
    request_id: str,
    n: int = 0,
    *,
    job: JobLike | None = None,
    model_path: str | Path | None = None,
    allow: Texts = (),
    tolerance: Annotated[int, Field(ge=0, le=255)] = 1,
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
    trust = Trust(job=own, model_path=None if model_path is None else str(model_path), allow=texts_of(allow))
    return reproduce_asset(store, request_id, n, trust=trust, tolerance=tolerance)


@refuses_other_types
def report(campaign: Campaign, selection: Selection | None = None) -> str:
    """Write the gallery anew from what is committed now; return its URL.

    Args:
        campaign: The campaign.
        selection: Which rows, by the metadata's columns; all by default. The next run writes all of them again.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
    """
    selection = _of_rows(selection)
    store = _store(campaign)
    folder = CampaignFolder(store)
    run_id = folder.newest_run()
    try:
        status = folder.status_of(run_id) or {"state": "done"}
    except UserError:  # the pictures are there all the same
        status = {"state": "done"}
    parts: Iterable[pa.Table] = effective_rows(store, run_id).parts(thumbnails=True)
    if not selection.is_of_all:
        parts = list(picked_rows(parts, selection))  # before a page is replaced
    write_gallery(store, run_id, parts, state=status["state"], progress=told_of(status))
    return joined(store.url, layout.GALLERY)


@refuses_other_types
def review(
    campaign: Campaign,
    *,
    approve: Texts = (),
    reject: Texts = (),
    pick: Texts = (),
    clear: Texts = (),
    note: str = "",
    by: str | None = None,
    decisions: str | Path | None = None,
    selection: Selection | None = None,
) -> ReviewReport:
    """Decide on outputs of a campaign, or take in a file of decisions; say what people think of them now.

    What is meant is an id, a glob of ids (`mug-*`), or either with an output number (`mug-1/2`).

    Args:
        campaign: The campaign.
        approve: Outputs to approve.
        reject: Outputs to reject: `run` with `Selection(is_rerolling=True)` replaces them.
        pick: Outputs to pick, one of a row: its siblings are not delivered.
        clear: Outputs on which you take back what you said.
        note: Written beside these decisions.
        by: Who decides; by default the user's name. Also of lines of a file that do not say.
        decisions: A file of decisions, such as the gallery lets you download; taking one in twice changes nothing.
        selection: Only outputs of these rows are meant and told of, by the metadata's columns; all by default.

    Raises:
        JobError: When the campaign has no run, or the selection names what is not there.
        UserError: When something is meant that is not there, or lines are wrong; then nothing is added.
    """
    from sdbatch.driver.review import decide, import_decisions, review_report

    selection = _of_rows(selection)
    store = _store(campaign)
    name = by or user_name()
    patterns = {"approved": approve, "rejected": reject, "picked": pick, "none": clear}
    meant = {verdict: texts_of(texts) for verdict, texts in patterns.items()}
    if note and not any(meant.values()):
        raise JobError("--note: say which outputs it is about, with --approve, --reject, --pick or --clear")
    if decisions is not None and not selection.is_of_all:
        raise JobError("--import: takes in a whole file; --only, --where and the like go with --list or --approve")
    num_saved = 0
    if decisions is not None:
        num_saved += import_decisions(store, _decisions_file(Path(decisions)), str(decisions), name)
    if any(meant.values()):
        num_saved += decide(store, meant, note, name, selection)
    return review_report(store, num_saved, selection)


@refuses_other_types
def serve_review(
    campaign: Campaign,
    *,
    by: str | None = None,
    port: Annotated[int, Field(ge=0, le=65535)] = 0,
    say: Callable[[str], None] = lambda _: None,
    opened: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve a campaign's gallery to this machine's browsers until a signal comes; return how many decisions it saved.

    Args:
        campaign: The campaign.
        by: Who decides, where the page does not say; by default the user's name.
        port: Port on 127.0.0.1; 0 for any that is free.
        say: Told of decisions that were not saved.
        opened: Given the page's address once it answers.

    Raises:
        JobError: When the campaign has no run, or aiohttp is not installed.
        UserError: When the port is taken, or a file of decisions is not readable.
    """
    from sdbatch.driver.review_server import serve_review

    folder = CampaignFolder(_store(campaign))
    newest = folder.status_of(folder.newest_run())
    if newest is None or newest["state"] != "running":  # the run that goes on writes the gallery itself
        report(campaign)
    return serve_review(folder.store, by or user_name(), port, say, opened)


def user_name() -> str:
    """Return the name under which somebody decides who does not say: the user's of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _decisions_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"--import {path}: {error.strerror or error}") from error


@refuses_other_types
def deliver(
    delivery: InstanceOf[Delivery] | str | Path | InstanceOf[Mapping[str, Any]],
    *,
    selection: Selection | None = None,
    dry_run: bool = False,
    prune: bool = False,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> DeliverReport:
    """Make the files that a delivery asks for from a campaign's masters; those that are there already stay.

    Args:
        delivery: Path of its YAML file, its values, or a `Delivery`.
        selection: Make the files of these rows alone, by the metadata's columns; the other files stay as they are.
        dry_run: Say what would be made; write nothing.
        prune: Remove files of this delivery that it does not ask for any more.
        allow_code: Let the delivery run a function that it names, such as one that signs.
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
    return deliver_files(
        delivery,
        selection=_of_rows(selection),
        dry_run=dry_run,
        prune=prune,
        allow_code=allow_code,
        progress=progress or Silent(),
    )


@refuses_other_types
def trace(file: str | Path, places: Texts) -> TraceReport:
    """Tell which output a file comes from: by its digest, by the key inside it, or by what it shows.

    Args:
        file: A local file.
        places: Campaigns and targets of deliveries to look in, in this order.

    Raises:
        JobError: When the file cannot be read, or a place holds neither.
    """
    from sdbatch.driver.trace import trace_file

    return trace_file(Path(file), list(texts_of(places)))


@refuses_other_types
def audit(campaign: Campaign, to: str | Path, delivered: Texts = ()) -> AuditReport:
    """Write one line a file: what made it, from which sources, who approved it, and how it is marked.

    Args:
        campaign: The campaign.
        to: A .csv, .tsv, .jsonl or .parquet file.
        delivered: Targets of deliveries whose files get a line too.

    Raises:
        JobError: When there is no campaign or no delivery, or the file cannot be written.
    """
    from sdbatch.driver.audit import audit_campaign

    return audit_campaign(CampaignFolder(_store(campaign)), Path(to), list(texts_of(delivered)))


@refuses_other_types
def takedown(
    campaign: Campaign,
    sources: Texts = (),
    *,
    where: str | None = None,
    delivered: Texts = (),
    by: str | None = None,
    note: str = "",
    yes: bool = False,
) -> TakedownReport:
    """List what was made from some sources, or is picked by an expression; with `yes` remove it for good.

    Args:
        campaign: The campaign.
        sources: URLs as in a manifest, or digests of contents. No run makes anything from them any more.
        where: Expression over the columns of `metadata`.
        delivered: Targets of deliveries, or their YAML files, from which files are removed too.
        by: Who takes it down; by default the user's name.
        note: Why; it is kept in the record.
        yes: Remove it. Without it nothing is written.

    Raises:
        UserError: When nothing is named, or nothing was made from a source.
        CampaignHeld: When a driver holds the campaign and something is to be removed.
    """
    from sdbatch.driver.takedown import take_down

    return take_down(
        _store(campaign),
        sources=list(texts_of(sources)),
        where=where,
        delivered=list(texts_of(delivered)),
        by=by or user_name(),
        note=note,
        yes=yes,
    )


@refuses_other_types
def make_credentials(folder: str | Path, name: str) -> list[Path]:
    """Write a certificate chain, its key and its root, for trying: programs do not know who vouches for them.

    Args:
        folder: Where to; it must not hold such files yet.
        name: Name of the signer.

    Raises:
        JobError: When the folder has one of them, or cannot be written.
    """
    from sdbatch.driver.make_credentials import write_chain

    return write_chain(Path(folder), name)


@refuses_other_types
def redo(
    job: JobLike,
    ids: Texts = (),
    overrides: Texts = (),
    *,
    selection: Selection | None = None,
    force: bool = False,
    in_process: bool = False,
    progress: Progress | None = None,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
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
        allow_code: See `run`.
        yes: See `run`.

    Returns:
        The run, or None when nothing is missing or damaged.

    Raises:
        UserError: Before anything was started.
    """
    return redo_job(
        load_job(job, overrides),
        frozenset(texts_of(ids)),
        selection=selection or Selection(),
        force=force,
        in_process=in_process,
        progress=progress or Silent(),
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        allow_code=allow_code,
        yes=yes,
    )


@refuses_other_types
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


@refuses_other_types
def submit(
    job: str | Path,
    address: str,
    overrides: Texts = (),
    *,
    date: str | None = None,
    working_dir: str | Path | None = ".",
    environment: Mapping[str, str] | None = None,
    accept_failed: bool = False,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
    yes: bool = False,
    budget: str | None = None,
    exclude: Texts = (),
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
        allow_code: See `run`.
        yes: See `run`.
        budget: See `run`; a job of the campaign that runs already keeps the budget it began with.
        exclude: Further patterns of files that stay here, as lines of .gitignore.
        say: Told what is sent, before it is sent.
        write: Given the job's log as it comes; without it the call does not wait.

    Raises:
        UserError: When the job is wrong, or would carry a secret.
        WorkersUnavailable: When the job server does not answer.
    """
    require("ray", "submitting to a cluster")
    from sdbatch.driver.submit import submit_job

    overrides = texts_of(overrides)

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
        allow_code=allow_code,
        yes=yes,
        budget=budget,
        exclude=texts_of(exclude),
        say=say or (lambda _: None),
        write=write,
    )


@refuses_other_types
def build_manifest(
    source: str | Path,
    folder: str | Path,
    *,
    shards: Count = 1,
    rename: Mapping[str, str] | None = None,
    drop: Texts = (),
    id_format: str | None = None,
    sheet: str | None = None,
    own: bool = False,
) -> BuildReport:
    """Build a manifest folder from CSV, TSV, a workbook, JSONL or Parquet; see `sdbatch.manifest.build`."""
    built = build_shards(
        Path(source),
        Path(folder),
        shards=shards,
        rename=rename,
        drop=texts_of(drop),
        id_format=id_format,
        sheet=sheet,
        own=own,
    )
    return _build_report(built)


def _build_report(built: Built) -> BuildReport:
    return BuildReport(
        rows=built.num_rows,
        files=[str(file) for file in built.files],
        warnings=list(built.warnings),
        notes=list(built.notes),
    )


@refuses_other_types
def count_brief(brief: str | Path, job: JobLike | None = None, overrides: Texts = ()) -> BriefCount:
    """Count the rows of a brief without making them.

    Args:
        brief: The brief.
        job: The job whose default model says what sizes its formats need; without it sizes are not told.
        overrides: `key.key=value` each, of the job.

    Raises:
        UserError: With what is wrong.
    """
    return brief_counted(Path(brief), _job_given(job, overrides))


@refuses_other_types
def preview_brief(
    brief: str | Path,
    num_rows: Annotated[int, Field(ge=1, le=1000)] = 5,
    job: JobLike | None = None,
    overrides: Texts = (),
) -> list[dict[str, Any]]:
    """Return some rows of a brief as its manifest will have them, spread over all values.

    Raises:
        UserError: With what is wrong.
    """
    return brief_preview(Path(brief), _job_given(job, overrides), num_rows)


@refuses_other_types
def build_brief(
    brief: str | Path,
    folder: str | Path,
    job: JobLike | None = None,
    overrides: Texts = (),
    *,
    shards: Count = 1,
) -> BuildReport:
    """Build the manifest folder of a brief.

    Raises:
        UserError: With what is wrong.
    """
    built, _ = driver_build_brief(Path(brief), Path(folder), job=_job_given(job, overrides), shards=shards)
    return _build_report(built)


@refuses_other_types
def list_models(job: JobLike | None = None, overrides: Texts = ()) -> list[ModelReport]:
    """Describe a job's models, or without a job the builtins. Reads no weights.

    Raises:
        ModelError: When a folder is missing or of no known family.
    """
    return describe_models(_job_given(job, overrides) or job_of_builtins())


@refuses_other_types
def pin_models(job: JobLike, overrides: Texts = ()) -> list[Pin]:
    """Return the digest that pins each model, further folder and LoRA of a job. Reads every byte of them.

    Revisions that the job states do not count, so that a job can be pinned whose revisions are refused.

    Raises:
        UserError: When the job is wrong otherwise, or a folder is missing.
    """
    return list(pins(load_job(job, overrides, with_revisions=False)))


def _of_rows(selection: Selection | None) -> Selection:
    """Return which rows a verb that makes nothing anew is about.

    Raises:
        JobError: When it says what a run makes, which picks none of the rows that are there.
    """
    selection = selection or Selection()
    for name in ("limit", "retry_failed", "is_rerolling"):
        if (value := getattr(selection, name)) not in {None, False}:
            raise JobError(f"{name} {value!r}: says what plan, run and redo make; only, where and sample pick rows")
    return selection


def _job_given(job: JobLike | None, overrides: Texts) -> Job | None:
    """Return the job that a caller may leave out."""
    if job is not None:
        return load_job(job, overrides)
    if override := next(iter(texts_of(overrides)), None):
        raise JobError(f"--set {override}: overrides a value of a job; name the job too, or leave --set out")
    return None


def _store(campaign: Campaign) -> Store:
    job = _job_of(campaign)
    return open_campaign(str(campaign), {}) if job is None else open_campaign(job.output, job.storage)


def _job_of(campaign: Campaign) -> Job | None:
    """Return the job that a campaign was given as; None where it is its URL."""
    if isinstance(campaign, Job):
        return load_job(campaign)
    return read_job(campaign) if _is_job_file(campaign) else None


def _is_job_file(campaign: str | Path) -> bool:
    return str(campaign).endswith((".yaml", ".yml"))

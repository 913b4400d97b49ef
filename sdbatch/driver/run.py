"""The order of a run.

manifest, every row checked --> lease --> voids --> plan published --> units made
    --> metadata, gallery --> snapshot --> run.json
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.lease import Lease, acquire
from sdbatch.campaign.leaving import Leaving
from sdbatch.campaign.schema import VOID, table, to_parquet
from sdbatch.campaign.standing import OutputName
from sdbatch.device_choice import runs_on_cpu
from sdbatch.dispatch.ahead import RayAhead
from sdbatch.dispatch.executor import WORKER
from sdbatch.driver.alone import alone_in_process
from sdbatch.driver.aside import Aside
from sdbatch.driver.compact import write_metadata
from sdbatch.driver.one_run.key_versions import settle_key_version
from sdbatch.driver.one_run.leaving import settle_leaving
from sdbatch.driver.one_run.on_end import addresses_of, message_of, message_of_error, tell_end
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.one_run.select import check_selection
from sdbatch.driver.one_run.session import Session, Workers, num_cpus_of
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.driver.signals import Interrupt
from sdbatch.errors import JobError, SdbatchError
from sdbatch.extras import require
from sdbatch.job import Job
from sdbatch.local_faults import local_faults_named, temporary_folder
from sdbatch.named_functions import function_of
from sdbatch.report.progress import Progress
from sdbatch.review.files import read_verdicts
from sdbatch.storage import Store, open_campaign

LOG = logging.getLogger("sdbatch.driver")


def run_job(
    job: Job,
    *,
    selection: Selection,
    in_process: bool,
    progress: Progress,
    void: Sequence[Mapping[str, Any]] = (),
    remove: Sequence[str] = (),
    worker: str = WORKER,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
    yes: bool = False,
    aside: Aside | None = None,
) -> RunResult:
    """Make what is missing of a job's campaign.

    Args:
        job: The job.
        selection: Which rows.
        in_process: One worker in this process instead of a Ray cluster.
        progress: Shown while it runs.
        void: Outputs (id, request_key, n) whose earlier commits no longer count.
        remove: Damaged assets.
        worker: Dotted path of the class that makes units; benchmarks name another one.
        accept_new_keys: Whether outputs with keys of an older version may be rendered again.
        allow_open_ray: Whether a Ray cluster may be one that asks for no token.
        allow_code: Whether functions that the job names may be run.
        yes: Whether more rows of the campaign may leave than `limits.leaving_fraction`.
        aside: Rows that are made in the place of the job's manifest's, and beside them: metadata and gallery stay.

    Raises:
        UserError, CampaignHeld: Before anything was written.
    """
    if in_process:
        require("worker", "a run in this process")
    else:
        require("ray", "a run on Ray")
    _check_code(job, in_process=in_process, allow_code=allow_code)
    addresses = addresses_of(job)
    runs_on_cpu()  # a wrong word is refused before anything starts
    check_selection(selection)
    interrupt = Interrupt()
    here = local_faults_named(temporary_folder(), "TMPDIR")
    taken_back = [OutputName(**output) for output in void]
    with (
        alone_in_process(in_process=in_process),
        interrupt.installed(),
        here,
        closing(RayAhead(num_cpus_of(job), allow_open=allow_open_ray)) as ahead,
        closing(_resolved(job, selection, taken_back, aside, ahead=None if in_process else ahead)) as manifest,
    ):
        for note in manifest.scanned.notes:
            progress.say(note)
        store = open_campaign(job.output, job.storage)
        key_version = settle_key_version(job, manifest, store, selection, accept_new_keys=accept_new_keys)
        leaving = Leaving() if aside else settle_leaving(job, manifest, store, yes=yes)
        lease = acquire(store, lambda: interrupt.count > 0)
        session = Session(
            job,
            manifest,
            store,
            lease,
            selection=selection,
            interrupt=interrupt,
            progress=progress,
            workers=Workers(in_process=in_process, path=worker, allow_open=allow_open_ray, ahead=ahead),
            key_version=key_version,
            leaving=leaving,
            is_aside=aside is not None,
        )
        try:
            result = _made(session, progress, manifest, store, lease, void, remove, aside)
        except BaseException as error:
            for line in _tell(addresses, message_of_error(session.run_id, store.url, error)):
                LOG.warning("not told", extra={"run_id": session.run_id, "error": line})
            raise
        untold = _tell(addresses, message_of(result))
        return replace(result, warnings=(*result.warnings, *untold))


AHEAD_FROM_ROWS = 100_000
"""Good rows of a manifest after which Ray is started beside the reading of the others, which take as long as that."""


def _resolved(
    job: Job, selection: Selection, void: Sequence[OutputName], aside: Aside | None, ahead: RayAhead | None
) -> ResolvedManifest:
    """Read the manifest; once it turns out to be long, Ray is started, unless the run before left nothing to make."""
    is_work_expected = cache(partial(_is_work_expected, job))

    def begin_ahead(num_rows: int) -> None:
        if ahead and num_rows >= AHEAD_FROM_ROWS and is_work_expected():
            ahead.begin()

    built = aside.manifest if aside else None
    return ResolvedManifest(job, selection, void=void, built=built, on_kept=begin_ahead)


def _is_work_expected(job: Job) -> bool:
    """Whether the campaign's newest run left rows open, or there is none; what cannot be read is told of later."""
    try:
        standing = Campaign(open_campaign(job.output, job.storage)).standing()
    except (SdbatchError, OSError):
        return False
    return not standing or standing.get("open", 0) > 0


def _check_code(job: Job, *, in_process: bool, allow_code: bool) -> None:
    """Refuse a job that names a function, unless the caller lets it; look for it where it will be called.

    Raises:
        JobError: When it is not allowed, or is not there.
    """
    if job.watermark is None:
        return
    if not allow_code:
        raise JobError(f"watermark.call: {job.watermark.call} is code; --allow-code lets a run call what its job names")
    if in_process:  # on a cluster it has to be where the workers are
        function_of(job.watermark.call, "watermark.call")


def _made(
    session: Session,
    progress: Progress,
    manifest: ResolvedManifest,
    store: Store,
    lease: Lease,
    void: Sequence[Mapping[str, Any]],
    remove: Sequence[str],
    aside: Aside | None,
) -> RunResult:
    """Make what is missing while the campaign is held, and give it back."""
    try:
        _void(store, session.run_id, void, remove)
        session.start_ahead()
        with ThreadPoolExecutor(1, "publish") as beside:  # Parquet is written while Python reads the history and counts
            path_of = layout.grid_requests if aside else layout.requests
            published = beside.submit(manifest.publish, store, session.run_id, path_of)
            done = Campaign(store).done(read_verdicts(store), follower=session.run_id)
            session.count_pending(done)
        published.result()
        session.write_status("running")
        state, message = session.make(done)
        history = None
        if aside and state in {"done", "failed"}:
            progress.say("writing the page")
            history = Campaign(store).history()
            lease.confirm()
            aside.write(store, session.run_id, history)
        elif state in {"done", "failed"}:
            progress.say("writing metadata and gallery")
            session.stop_gallery()
            told = session.told_to_gallery(message)
            history = write_metadata(store, session.run_id, lease.confirm, state=state, progress=told)
        else:
            session.write_gallery(state, message)
        session.write_snapshot(history)
        return session.end(state, message)
    except BaseException:
        session.end_workers()
        with suppress(SdbatchError, OSError):
            session.write_status("stopped")
            session.write_gallery("stopped", None)
        raise
    finally:
        lease.release()


def _tell(addresses: Sequence[str], message: Mapping[str, Any]) -> list[str]:
    """Tell others how the run ended; return what went wrong, in lines, which nothing else follows from."""
    if not addresses:
        return []
    try:
        return tell_end(addresses, message)
    except KeyboardInterrupt:
        return ["on_end: a signal came before everybody was told that the run ended"]


def _void(store: Store, run_id: str, void: Sequence[Mapping[str, Any]], remove: Sequence[str]) -> None:
    """Remove damaged assets, and record that the outputs' earlier commits no longer count."""
    # Removed first: a kill between the two leaves a missing asset, which `verify` and so the next redo find.
    for asset in remove:
        store.delete(asset)
    if void:
        store.put_new(layout.redo(run_id), to_parquet(table(void, VOID)))

"""Makes missing and damaged assets again; whole ones stay."""

from __future__ import annotations

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.driver.records import RunResult
from sdbatch.driver.run import run_job
from sdbatch.driver.select import Selection
from sdbatch.errors import JobError
from sdbatch.job import Job
from sdbatch.report.progress import Progress
from sdbatch.storage import open_campaign


def redo_job(
    job: Job,
    ids: frozenset[str],
    *,
    in_process: bool,
    progress: Progress,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    yes: bool = False,
) -> RunResult | None:
    """Verify the campaign of a job, and make again what is missing or damaged; return None when nothing is.

    Args:
        job: The job.
        ids: Only these requests; all of them when empty.
        in_process: See `run_job`.
        progress: See `run_job`.
        accept_new_keys: See `run_job`.
        allow_open_ray: See `run_job`.
        yes: See `run_job`.

    Raises:
        UserError: Before anything was started.
    """
    campaign = Campaign(open_campaign(job.output, job.storage))
    campaign.newest_run()
    if unknown := campaign.unknown(ids):
        raise JobError(f"redo {min(unknown)}: nothing was ever committed for this id")
    findings = [
        finding
        for finding in campaign.verify().findings
        if finding.kind in {"missing", "damaged"} and (not ids or finding.id in ids)
    ]
    if not findings:
        return None
    # Outputs of one key are one picture: all of them are made anew, under every id.
    void = campaign.assets_of({(finding.request_key, finding.n) for finding in findings})
    void |= {(finding.id, finding.request_key, finding.n): finding.asset for finding in findings}
    if len(void) > len(findings):
        others = len(void) - len(findings)
        progress.say(
            f"{len(findings)} missing or damaged; {others} outputs of the same request keys are made again too"
        )
    return run_job(
        job,
        selection=Selection(
            only=frozenset(request_id for request_id, _, _ in void),
            skips_unknown=True,
            again=frozenset((request_id, key, n) for request_id, key, n in void if n is not None),
        ),
        in_process=in_process,
        progress=progress,
        void=[dict(zip(("id", "request_key", "n"), place, strict=True)) for place in void],
        accept_new_keys=accept_new_keys,
        allow_open_ray=allow_open_ray,
        yes=yes,
        # A commit that was tampered with may name a file that is none of the campaign's assets.
        remove=tuple(sorted(asset for asset in void.values() if layout.asset_parts(asset))),
    )

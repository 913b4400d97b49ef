"""Makes missing and damaged assets again, and with `force` whole ones of the requests that are named."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.parts import DIGEST, part_digests
from sdbatch.driver.rows.scan import IS_PICKED, ResolvedManifest
from sdbatch.driver.run import run_job
from sdbatch.errors import JobError
from sdbatch.job import Job
from sdbatch.report.progress import Progress
from sdbatch.review.files import read_verdicts
from sdbatch.storage import open_campaign

Place = tuple[str, str, int | None]
"""Id, request key and number of an output."""
_ASKED: Final = ["id", "request_key", "num_outputs", *DIGEST]


def redo_job(
    job: Job,
    ids: frozenset[str],
    *,
    in_process: bool,
    progress: Progress,
    selection: Selection | None = None,
    force: bool = False,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
    yes: bool = False,
) -> RunResult | None:
    """Verify the campaign of a job, and make again what is missing or damaged; return None when nothing is.

    Args:
        job: The job.
        ids: Only these requests; all of them when empty.
        in_process: See `run_job`.
        progress: See `run_job`.
        selection: Only these rows of the job's manifest.
        force: Make again what is whole too. The requests are named then, by ids or a selection.
        accept_new_keys: See `run_job`.
        allow_open_ray: See `run_job`.
        allow_code: See `run_job`.
        yes: See `run_job`.

    Raises:
        UserError: Before anything was started.
    """
    selection = selection or Selection()
    campaign = Campaign(open_campaign(job.output, job.storage))
    campaign.newest_run()
    if force:
        if not ids and selection.is_of_all:
            raise JobError("redo --force: makes whole assets again; name the requests, or pick them with --where")
        void = _forced(job, campaign, _named(selection, ids), progress)
    else:
        if unknown := campaign.unknown(ids):
            raise JobError(f"redo {min(unknown)}: nothing was ever committed for this id")
        if not selection.is_of_all:
            ids = frozenset(_picked(job, _named(selection, ids)).column("id").to_pylist())
            if not ids:
                return None
        void = _broken(campaign, ids, progress)
    withdrawn = set(read_tombstones(campaign.store).keys.to_pylist())  # no run makes an output of these keys
    void = {place: asset for place, asset in void.items() if place[1] not in withdrawn}
    if not void:
        return None
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
        allow_code=allow_code,
        yes=yes,
        # A commit that was tampered with may name a file that is none of the campaign's assets.
        remove=tuple(sorted(asset for asset in void.values() if layout.asset_parts(asset))),
    )


def _broken(campaign: Campaign, ids: frozenset[str], progress: Progress) -> dict[Place, str]:
    """Return the assets that `verify` finds missing or damaged, and those of the same keys."""
    findings = [
        finding
        for finding in campaign.verify().findings
        if finding.kind in {"missing", "damaged"} and (not ids or finding.id in ids)
    ]
    if not findings:
        return {}
    # Outputs of one key are one picture: all of them are made anew, under every id.
    void = campaign.assets_of({(finding.request_key, finding.n) for finding in findings})
    void |= {(finding.id, finding.request_key, finding.n): finding.asset for finding in findings}
    if len(void) > len(findings):
        others = len(void) - len(findings)
        progress.say(
            f"{len(findings)} missing or damaged; {others} outputs of the same request keys are made again too"
        )
    return void


def _forced(job: Job, campaign: Campaign, selection: Selection, progress: Progress) -> dict[Place, str]:
    """Return the assets of some requests as the manifest has them now, and those of the same keys.

    An output that another one replaced stays as it is: the other one is made again.
    """
    picked = _picked(job, selection)
    ids, keys, numbers = (picked.column(name) for name in ("id", "request_key", "num_outputs"))
    unwanted = campaign.done(read_verdicts(campaign.store)).standing(part_digests(picked), ids, numbers).unwanted
    outputs = {
        (key, n)
        for row, (key, num_outputs) in enumerate(zip(keys.to_pylist(), numbers.to_pylist(), strict=True))
        for n in (unwanted[row].shown(num_outputs) if row in unwanted else range(num_outputs))
    }
    void = campaign.assets_of(outputs)
    named = set(ids.to_pylist())
    others = sum(request_id not in named for request_id, _, _ in void)
    also = f"; {others} of them of other ids with the same request keys" if others else ""
    progress.say(f"{len(void)} assets of {len(named)} requests are made again{also}")
    return void


def _named(selection: Selection, ids: frozenset[str]) -> Selection:
    return dataclasses.replace(selection, only=selection.only | ids) if ids else selection


def _picked(job: Job, selection: Selection) -> pa.Table:
    """Return id, request key, number of outputs and digests of the rows that a selection means."""
    with closing(ResolvedManifest(job, selection)) as manifest:
        parts = [part.filter(part.column(IS_PICKED)) for part in manifest.parts(_ASKED)]
    return pa.concat_tables(parts).select(_ASKED)

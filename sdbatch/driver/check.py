"""Checks a job and every row of its manifest; nothing is written.

    Job --> scan() --> errors, or CheckReport with warnings: about rows, and of rows that leave the campaign

Warnings stop nothing, unless the caller is strict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.leaving import Leaving, leaving_rows
from sdbatch.checkpoints import ModelInfo
from sdbatch.driver.rows.scan import scan
from sdbatch.driver.rows.source_headers import SourceHeaders
from sdbatch.driver.rows.tables import opened_manifest
from sdbatch.errors import Problem, SdbatchError, WarningsRefused, grouped
from sdbatch.job import Job
from sdbatch.manifest.read import list_shards, read_batches
from sdbatch.storage import open_campaign, parse_url


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The size of a job that passed every check, and what a person should know before it is run.

    Attributes:
        rows: Manifest rows.
        shards: Parquet files.
        assets: Files a full run makes.
        models: Family title by model name.
        sources: Pictures and clips that the manifest names.
        sources_read: How many of them had their headers read.
        warnings: What may not be as it was meant, one entry for each row and cause; the first 1000.
        num_warnings: Number of all of them.
        rows_leaving: Rows of the campaign that the manifest does not have; their assets stay.
        notes: How the manifest's table was read where that is not written in it.
    """

    rows: int
    shards: int
    assets: int
    models: dict[str, str]
    sources: int = 0
    sources_read: int = 0
    warnings: list[Problem] = field(default_factory=list)
    num_warnings: int = 0
    rows_leaving: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the warnings as people read them, equal ones together."""
        return grouped(self.warnings)


def check_job(job: Job, *, all_sources: bool = False, strict: bool = False) -> CheckReport:
    """Check a job and every row of its manifest, and read the headers of its sources.

    Args:
        job: The job.
        all_sources: Whether the headers of all remote sources are read, and not only a sample's.
        strict: Whether warnings are errors.

    Raises:
        UserError: With everything that is wrong.
        WarningsRefused: When `strict`, with every warning.
    """
    headers = SourceHeaders(job, reads_all=all_sources)
    scanned = scan(job, headers=headers)
    leaving, of_campaign = _of_campaign(job, scanned.ids_digest)
    of_models = [
        _assumed(model) for model in scanned.models.values() if model.single_file and model.single_file.assumed
    ]
    warnings = [*of_models, *of_campaign, *scanned.warnings]
    num_warnings = scanned.num_warnings + len(of_campaign) + len(of_models)
    if strict and num_warnings:
        raise WarningsRefused(warnings, num_warnings)
    return CheckReport(
        rows=scanned.num_rows,
        shards=scanned.num_shards,
        assets=scanned.num_outputs,
        models={name: model.family.title for name, model in scanned.models.items()},
        sources=headers.num_sources,
        sources_read=headers.num_read,
        warnings=warnings,
        num_warnings=num_warnings,
        rows_leaving=leaving.num_rows,
        notes=list(scanned.notes),
    )


def _assumed(model: ModelInfo) -> Problem:
    """Return the warning of what the keys of a single file do not tell."""
    said = model.single_file.assumed if model.single_file else ""
    return Problem(shard=f"models.{model.name}", row=None, column=None, value=None, message=f"{model.path} is {said}")


def _of_campaign(job: Job, ids_digest: str) -> tuple[Leaving, list[Problem]]:
    """Return the rows that leave the campaign, and the warning they are, or why that is not known.

    A campaign in a bucket is asked when the manifest is in one as well. Otherwise a check needs no network, and `plan`
    tells of it.
    """
    if not parse_url(job.output).is_local and parse_url(job.manifest_path).is_local:
        return Leaving(), []
    try:
        store = open_campaign(job.output, job.storage)
        leaving = leaving_rows(store, lambda: _ids(job), ids_digest, lambda: Campaign(store).history(unreadable=[]))
    except SdbatchError as error:
        message = f"could not be read, so rows that leave it are not counted: {error}"
        return Leaving(), [Problem(shard=job.output, row=None, column=None, value=None, message=message)]
    if not leaving.num_rows:
        return leaving, []
    return leaving, [Problem(shard=job.output, row=None, column=None, value=None, message=str(leaving))]


def _ids(job: Job) -> Iterable[pa.Table]:
    """Yield the ids of a manifest; keys are not known without digests of sources and models."""
    with opened_manifest(job) as manifest:
        for shard in list_shards(manifest.url, job.storage):
            for batch in read_batches(shard):
                yield pa.table({"id": pa.array(batch.columns["id"], pa.string())})

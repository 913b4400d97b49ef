"""Checks a job and every row of its manifest; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from sdbatch.driver.scan import scan
from sdbatch.driver.source_headers import SourceHeaders
from sdbatch.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The size of a job that passed every check.

    Attributes:
        rows: Manifest rows.
        shards: Parquet files.
        assets: Files a full run makes.
        models: Family title by model name.
        sources: Pictures and clips that the manifest names.
        sources_read: How many of them had their headers read.
    """

    rows: int
    shards: int
    assets: int
    models: dict[str, str]
    sources: int = 0
    sources_read: int = 0


def check_job(job: Job, *, all_sources: bool = False) -> CheckReport:
    """Check a job and every row of its manifest, and read the headers of its sources.

    Args:
        job: The job.
        all_sources: Whether the headers of all remote sources are read, and not only a sample's.

    Raises:
        UserError: With everything that is wrong.
    """
    headers = SourceHeaders(job, reads_all=all_sources)
    scanned = scan(job, headers=headers)
    return CheckReport(
        rows=scanned.num_rows,
        shards=scanned.num_shards,
        assets=scanned.num_outputs,
        models={name: model.family.title for name, model in scanned.models.items()},
        sources=headers.num_sources,
        sources_read=headers.num_read,
    )

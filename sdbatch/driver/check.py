"""Checks a job and every row of its manifest; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from sdbatch.driver.scan import scan
from sdbatch.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The size of a job that passed every check.

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


def check_job(job: Job) -> CheckReport:
    """Check a job and every row of its manifest.

    Raises:
        UserError: With everything that is wrong.
    """
    scanned = scan(job)
    return CheckReport(
        rows=scanned.num_rows,
        shards=scanned.num_shards,
        assets=scanned.num_outputs,
        models={name: model.family.title for name, model in scanned.models.items()},
    )

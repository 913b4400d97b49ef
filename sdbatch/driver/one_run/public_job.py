"""A job as a run's record has it: whoever may read a campaign learns from it no address that is a secret."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from sdbatch.job import Job
from sdbatch.job.on_end import FROM_ENVIRONMENT, host_of


def public_job(job: Job) -> dict[str, Any]:
    """Return a job as plain values; of each address under `on_end` only the host."""
    values = job.model_dump(mode="json")
    values["on_end"] = [entry if entry.startswith(FROM_ENVIRONMENT) else _shown(entry) for entry in job.on_end]
    return values


def _shown(address: str) -> str:
    return f"{urlsplit(address).scheme}://{host_of(address)}/..."

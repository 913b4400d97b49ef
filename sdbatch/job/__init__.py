"""The job file: what to make, with which models, and where to put it."""

from __future__ import annotations

from sdbatch.job.read import parse_job, read_job
from sdbatch.job.settings import (
    STEP_CACHES,
    Defaults,
    Encode,
    Job,
    Limits,
    Lora,
    Model,
    Sources,
    StepCache,
    Storage,
    Workers,
    job_schema,
)

__all__ = [
    "STEP_CACHES",
    "Defaults",
    "Encode",
    "Job",
    "Limits",
    "Lora",
    "Model",
    "Sources",
    "StepCache",
    "Storage",
    "Workers",
    "job_schema",
    "parse_job",
    "read_job",
]

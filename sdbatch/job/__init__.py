"""The job file: what to make, with which models, and where to put it."""

from __future__ import annotations

from sdbatch.job.reach import STORAGE_OPTIONS, Storage, options_for, prefix_for, storage_faults
from sdbatch.job.read import parse_job, read_job
from sdbatch.job.records import job_of_record
from sdbatch.job.settings import (
    COMPONENTS,
    JOB_VERSION,
    STEP_CACHES,
    Component,
    Defaults,
    Encode,
    Job,
    Limits,
    Lora,
    Model,
    Sources,
    StepCache,
    Workers,
    is_fixed,
    job_schema,
)

__all__ = [
    "COMPONENTS",
    "JOB_VERSION",
    "STEP_CACHES",
    "STORAGE_OPTIONS",
    "Component",
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
    "is_fixed",
    "job_of_record",
    "job_schema",
    "options_for",
    "parse_job",
    "prefix_for",
    "read_job",
    "storage_faults",
]

"""The job file: what to make, with which models, and where to put it."""

from __future__ import annotations

from sdbatch.job.model import ENTRY_COMPONENTS, STEP_CACHES, Defaults, Model, StepCache
from sdbatch.job.money import Budget, Prices, with_budget
from sdbatch.job.reach import STORAGE_OPTIONS, Storage, options_for, prefix_for, refuse_unfilled, storage_faults
from sdbatch.job.read import parse_job, read_job
from sdbatch.job.records import job_of_record
from sdbatch.job.settings import JOB_VERSION, Encode, Job, Limits, ManifestTable, Sources, Workers, job_schema
from sdbatch.job.weights import QUANTIZE_TYPES, Component, Embedding, Lora, Quantize, VaeOptions, base_of, is_fixed

__all__ = [
    "ENTRY_COMPONENTS",
    "JOB_VERSION",
    "QUANTIZE_TYPES",
    "STEP_CACHES",
    "STORAGE_OPTIONS",
    "Budget",
    "Component",
    "Defaults",
    "Embedding",
    "Encode",
    "Job",
    "Limits",
    "Lora",
    "ManifestTable",
    "Model",
    "Prices",
    "Quantize",
    "Sources",
    "StepCache",
    "Storage",
    "VaeOptions",
    "Workers",
    "base_of",
    "is_fixed",
    "job_of_record",
    "job_schema",
    "options_for",
    "parse_job",
    "prefix_for",
    "read_job",
    "refuse_unfilled",
    "storage_faults",
    "with_budget",
]

"""sdbatch: a table of prompts and source images becomes finished pictures and clips, on as many GPUs as you have.

The tree, in the order the data walks:

    job/ -> desk/ -> manifest/ -> plan/ -> dispatch/ -> fetch/ -> generate/ -> after/ -> encode/ -> campaign/ -> report/

The driver (`driver/`) and the worker (`worker/`) put rooms together; nothing else does. Importing this package
imports neither torch nor Ray.
"""

from __future__ import annotations

from sdbatch.api import (
    build_brief,
    build_manifest,
    cancel,
    check,
    count_brief,
    deliver,
    gc,
    list_models,
    load_job,
    metadata,
    pin_models,
    plan,
    preview_brief,
    redo,
    report,
    reproduce,
    run,
    status,
    submit,
    verify,
)
from sdbatch.driver import RunResult, Selection
from sdbatch.job import Job

__all__ = [
    "Job",
    "RunResult",
    "Selection",
    "build_brief",
    "build_manifest",
    "cancel",
    "check",
    "count_brief",
    "deliver",
    "gc",
    "list_models",
    "load_job",
    "metadata",
    "pin_models",
    "plan",
    "preview_brief",
    "redo",
    "report",
    "reproduce",
    "run",
    "status",
    "submit",
    "verify",
]

"""A job through the real driver, dispatcher and actors, with a worker class of the benchmarks. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdbatch.api import load_job
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.run import run_job
from sdbatch.report.progress import Silent


def run(job: Mapping[str, Any], worker: str) -> RunResult:
    """Run a job with the workers at a dotted path.

    Raises:
        RuntimeError: When anything but all rows was made.
    """
    result = run_job(load_job(job), selection=Selection(), in_process=False, progress=Silent(), worker=worker)
    if result.exit_code != 0:
        raise RuntimeError(f"the run ended as {result.state}: {result.message}; {result.failures}")
    return result

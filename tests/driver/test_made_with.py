"""A resume on workers of other versions: refused in `exact`, warned of in `fast`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.other_torch import OTHER_TORCH

import sdbatch
from sdbatch.dispatch.executor import WORKER
from sdbatch.dispatch.likeness import COMPARED
from sdbatch.driver.one_run.made_with import read_made_with
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.run import run_job
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent
from sdbatch.storage import open_store

OTHER = "support.other_torch:OtherTorchWorker"
WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]


def _run(job: dict[str, Any], worker: str = WORKER) -> RunResult:
    return run_job(parse_job(job), selection=Selection(), in_process=True, progress=Silent(), worker=worker)


def _record(result: RunResult) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((Path(result.output) / "runs" / result.run_id / "run.json").read_text())
    return record


@pytest.fixture
def jobs(write_manifest: WriteManifest, job_of: JobOf) -> Callable[[str], tuple[dict[str, Any], dict[str, Any]]]:
    """Return a job of one row, and the same job of two."""

    def make(determinism: str) -> tuple[dict[str, Any], dict[str, Any]]:
        one, two = (write_manifest(prompts(count), name=f"rows-{count}") for count in (1, 2))
        return job_of(one, determinism=determinism), job_of(two, determinism=determinism)

    return make


def test_a_worker_states_every_version_that_is_compared(jobs: Any) -> None:
    (facts,) = _record(_run(jobs("exact")[0]))["workers"].values()

    assert {*COMPARED, "host", "pid", "python"} <= facts.keys()
    assert all(facts[name] for name in COMPARED if name not in {"CUDA", "cuDNN", "GPU"})


def test_an_exact_campaign_is_not_resumed_with_another_torch(jobs: Any) -> None:
    one, two = jobs("exact")
    first = _run(one)
    refused = _run(two, OTHER)
    resumed = _run(two)
    torch = _record(first)["workers"]["w0"]["torch"]

    assert (refused.state, refused.exit_code, refused.counts["rows_generated"]) == ("stopped", 1, 0)
    assert f"worker w0 has torch {OTHER_TORCH}, run {first.run_id} had {torch}: determinism: exact" in str(
        refused.message
    )
    assert _record(refused)["workers"]["w0"]["torch"] == OTHER_TORCH
    assert (resumed.state, resumed.counts["rows_generated"]) == ("done", 1)


def test_a_fast_campaign_is_resumed_with_another_torch_and_says_so_once(jobs: Any) -> None:
    one, two = jobs("fast")
    first = _run(one)
    resumed = _run(two, OTHER)
    torch = _record(first)["workers"]["w0"]["torch"]

    assert first.warnings == ()
    assert (resumed.state, resumed.counts["rows_generated"]) == ("done", 1)
    assert resumed.warnings == (f"worker w0 has torch {OTHER_TORCH}, run {first.run_id} had {torch}",)
    assert _record(resumed)["warnings"] == list(resumed.warnings)


def test_exact_outputs_are_compared_with_exact_ones_alone(jobs: Any) -> None:
    _run(jobs("fast")[0], OTHER)

    assert _run(jobs("exact")[0]).state == "done"


def test_what_outputs_were_made_with_outlives_runs_that_make_nothing_and_killed_drivers(jobs: Any) -> None:
    one, two = jobs("exact")
    first = _run(one)
    (Path(first.output) / "runs" / first.run_id / "run.json").unlink()  # as a driver that was killed leaves it
    assert _run(one).counts["rows_generated"] == 0

    assert f"run {first.run_id} had" in str(_run(two, OTHER).message)


def test_a_campaign_of_version_0_1_tells_of_no_versions(tmp_path: Path) -> None:
    folder = tmp_path / "campaign"
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "campaign_0_1" / "campaign", folder)

    assert read_made_with(open_store(str(folder), {})).by_determinism == {}
    assert sdbatch.status(str(folder))

"""Records of a run: what stands in `run.json`."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts

from sdbatch.driver.picking import Selection
from sdbatch.driver.run import run_job
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent


def test_a_run_ends_well_where_packages_of_other_extras_are_not_installed(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in {"ray", "s3fs"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    job = parse_job(job_of(write_manifest(prompts(2))))
    worker = "support.workers:ScriptedWorker"
    result = run_job(job, selection=Selection(), in_process=True, progress=Silent(), worker=worker)

    record = json.loads(Path(result.output, "runs", result.run_id, "run.json").read_text())
    assert result.exit_code == 0
    assert {"python", "sdbatch", "torch"} <= record["versions"].keys()
    assert not {"ray", "s3fs"} & record["versions"].keys()

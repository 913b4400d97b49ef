"""The ready jobs are right, told without the weights they name."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdbatch

ROOT = Path(__file__).parent.parent
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
ROWS = {file.stem: file for file in (ROOT / "manifests").iterdir() if file.suffix in {".csv", ".jsonl"}}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_ready_job_is_right_without_its_weights(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    manifest = sdbatch.load_job(job).manifest_path
    rows = ROWS.get(Path(manifest).name, ROWS["stills"])  # tonight's manifest lies in a bucket, and is of stills
    sdbatch.build_manifest(rows, tmp_path / "manifest")
    report = sdbatch.check(job, [f"manifest={tmp_path / 'manifest'}"])

    assert report.assets >= report.rows > 0


def test_every_manifest_beside_the_jobs_is_some_jobs() -> None:
    assert {Path(sdbatch.load_job(job).manifest_path).name for job in JOBS} >= ROWS.keys()

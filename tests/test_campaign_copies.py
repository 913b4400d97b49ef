"""Same picture, once: rows of one request key are rendered once, and every id gets a file of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import EXECUTORS_AND_STORES, LONG_ON_S3, asset_digests

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.driver.run import run_job
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent
from sdbatch.storage import open_store

WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]
KILLED_ONCE = "support.workers:KilledOnce"


def _twins(count: int, first: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """Return rows with one seed and one prompt."""
    return [{"id": f"twin-{n:02d}", "prompt": "one scene", "seed": 7, **columns} for n in range(first, first + count)]


def _rows(output: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sdbatch.metadata(output).to_pylist()
    return rows


@pytest.mark.fault(
    "F20", "the same prompt and seed under twelve ids", "rendered once, eleven copies with the same sha256"
)
@EXECUTORS_AND_STORES
def test_twelve_ids_with_one_key_are_one_rendered_output_and_twelve_assets(
    in_process: bool, campaign_url: str, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(_twins(12, x_locale="en")), campaign_url, workers={"count": 1})
    planned = sdbatch.plan(job)
    counts = sdbatch.run(job, in_process=in_process).counts
    rows = _rows(campaign_url)

    assert (planned.assets, planned.copies) == (12, 11)
    assert (counts["rows_generated"], counts["rows_ok"], counts["assets_put"], counts["assets_copied"]) == (
        1,
        12,
        12,
        11,
    )
    assert {row["asset"]: row["sha256"] for row in rows} == asset_digests(campaign_url)
    assert len({row["asset"] for row in rows}) == 12
    assert len({row["sha256"] for row in rows}) == 1
    assert [row["copied_from"] for row in rows] == [None, *[rows[0]["asset"]] * 11]
    report = sdbatch.verify(campaign_url)
    assert report.is_good
    assert report.assets_hashed == 12
    assert sdbatch.run(job, in_process=in_process).counts["model_calls"] == 0


@LONG_ON_S3
@pytest.mark.fault("F20", "eleven of twelve ids renamed", "copied from the earlier run, nothing is rendered")
def test_ids_that_were_renamed_are_copied_from_the_earlier_run(
    campaign_url: str, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    sdbatch.run(job_of(write_manifest(_twins(12)), campaign_url), in_process=True)
    renamed = [_twins(1)[0], *_twins(11, first=50)]
    job = job_of(write_manifest(renamed), campaign_url)
    planned = sdbatch.plan(job)
    counts = sdbatch.run(job, in_process=True).counts
    rows = _rows(campaign_url)

    assert (planned.assets, planned.copies, planned.predicted_gpu_s) == (11, 11, 0.0)
    assert (counts["rows_generated"], counts["model_calls"], counts["assets_copied"]) == (0, 0, 11)
    assert (counts["rows_ok"], counts["rows_reused"]) == (11, 1)
    assert all(row["copied_from"].startswith("assets/twin-") for row in rows[1:])
    assert sdbatch.verify(campaign_url).is_good
    assert len(asset_digests(campaign_url)) == 23


def test_an_origin_that_is_gone_or_differs_is_rendered(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    output = str(tmp_path / "campaign")
    sdbatch.run(job_of(write_manifest(_twins(1)), output), in_process=True)
    (origin,) = (tmp_path / "campaign" / "assets").iterdir()
    whole = origin.read_bytes()
    origin.unlink()
    gone = sdbatch.run(job_of(write_manifest(_twins(1, first=1)), output), in_process=True).counts
    origin.write_bytes(whole[:-20])
    for path in (tmp_path / "campaign" / "assets").glob("twin-01-*"):
        path.write_bytes(whole[:-10])
    damaged = sdbatch.run(job_of(write_manifest(_twins(1, first=2)), output), in_process=True).counts

    assert (gone["rows_generated"], gone["assets_copied"]) == (1, 0)
    assert (damaged["rows_generated"], damaged["assets_copied"]) == (1, 0)


def test_ids_may_want_unlike_numbers_of_outputs(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    output = str(tmp_path / "campaign")
    rows = [*_twins(1), *_twins(1, first=1, num_outputs=3), *_twins(1, first=2, num_outputs=2)]
    counts = sdbatch.run(job_of(write_manifest(rows), output), in_process=True).counts
    made = {(row["id"], row["n"]): row["sha256"] for row in _rows(output)}

    assert (counts["rows_generated"], counts["assets_put"], counts["assets_copied"]) == (3, 6, 3)
    assert sorted(made) == [("twin-00", 0), *(("twin-01", n) for n in range(3)), ("twin-02", 0), ("twin-02", 1)]
    assert len(set(made.values())) == 3
    assert made["twin-02", 1] == made["twin-01", 1] != made["twin-00", 0]


def test_a_failure_is_every_ids(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    edit: dict[str, Any] = {"task": "image-to-image", "images": [str(tmp_path / "gone.png")], "strength": 1.0}
    result = sdbatch.run(job_of(write_manifest(_twins(3, **edit))), in_process=True)

    assert result.failures == {"SourceMissing": 3}
    assert {row["id"]: row["status"] for row in _rows(result.output)} == {f"twin-0{n}": "failed" for n in range(3)}


def test_redoing_one_makes_the_picture_anew_for_all(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    output = str(tmp_path / "campaign")
    job = job_of(write_manifest(_twins(12)), output)
    sdbatch.run(job, in_process=True)
    before = asset_digests(output)
    next((tmp_path / "campaign" / "assets").glob("twin-05-*")).unlink()
    result = sdbatch.redo(job, ["twin-05"], in_process=True)

    assert result is not None
    assert (result.counts["rows_generated"], result.counts["rows_ok"], result.counts["assets_put"]) == (1, 12, 12)
    assert {row["run_id"] for row in _rows(output)} == {result.run_id}
    assert asset_digests(output) == before
    assert sdbatch.verify(output).is_good


def test_a_run_of_some_ids_copies_only_for_them(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    output = str(tmp_path / "campaign")
    job = job_of(write_manifest(_twins(12)), output)
    some = sdbatch.run(job, Selection(only=frozenset({"twin-03", "twin-09"})), in_process=True).counts
    rest = sdbatch.run(job, in_process=True).counts

    assert (some["rows_generated"], some["assets_copied"], some["assets_put"]) == (1, 1, 2)
    assert (rest["rows_generated"], rest["assets_copied"], rest["assets_put"]) == (0, 10, 10)
    assert sdbatch.verify(output).is_good


@pytest.mark.parametrize(
    "point", ["after-generate", "between-two-assets", "before-the-commit", "after-the-commit", "amid-compaction"]
)
def test_a_worker_that_is_killed_amid_copies_loses_and_doubles_nothing(
    point: str, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    output = str(tmp_path / "campaign")
    job = job_of(write_manifest([*_twins(6), {"id": "alone", "prompt": "another scene"}]), output)
    child = os.fork()
    if child == 0:
        _run_until(point, job)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    counts = sdbatch.run(job, in_process=True).counts
    rows = _rows(output)

    assert counts["rows_ok"] + counts["rows_reused"] == 7
    assert {row["asset"]: row["sha256"] for row in rows} == asset_digests(output)
    assert len(rows) == 7
    assert len({row["sha256"] for row in rows if row["id"] != "alone"}) == 1
    report = sdbatch.verify(output)
    assert report.is_good
    assert not report.orphans


@pytest.mark.ray
def test_a_ray_worker_killed_amid_copies_costs_nothing(
    ray_cluster: None, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    output = str(tmp_path / "campaign")
    rows = [*_twins(12), *_twins(3, first=20, num_outputs=2)]
    job = parse_job(job_of(write_manifest(rows), output, workers={"count": 1}))
    result = run_job(job, selection=Selection(), in_process=False, progress=Silent(), worker=KILLED_ONCE)
    made = _rows(output)

    assert (tmp_path / "campaign" / "killed").is_file()
    assert (result.state, result.counts["worker_deaths"], result.counts["rows_ok"]) == ("done", 1, 15)
    assert {row["asset"]: row["sha256"] for row in made} == asset_digests(output)
    assert len(made) == 18
    assert sdbatch.verify(output).is_good


def _run_until(point: str, job: dict[str, Any]) -> None:
    """Run in this process and kill it when it passes a point for the second time where there are several."""
    from sdbatch import points

    passed: list[str] = []

    def strike(name: str) -> None:
        passed.append(name)
        if name == point and passed.count(name) >= (3 if point == "between-two-assets" else 1):
            os.kill(os.getpid(), signal.SIGKILL)

    points.install(strike)
    sdbatch.run(job, in_process=True)
    os._exit(1)


def test_a_copys_row_says_what_it_is(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    output = str(tmp_path / "campaign")
    result = sdbatch.run(job_of(write_manifest(_twins(2)), output), in_process=True)
    first, copy = read_commit(open_store(output, {}), layout.commit(result.run_id, "000000")).to_pylist()

    assert (first["id"], copy["id"], copy["copied_from"]) == ("twin-00", "twin-01", first["asset"])
    assert copy["thumbnail"] == first["thumbnail"]
    assert copy["denoise_s"] is None
    assert {name: copy[name] for name in ("prompt", "seed", "width", "media_type")} == {
        name: first[name] for name in ("prompt", "seed", "width", "media_type")
    }

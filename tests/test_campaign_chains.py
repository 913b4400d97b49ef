"""Rows whose sources are outputs of their own campaign: `asset:<id>/<n>`."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LONG_ON_S3
from support.toy_models import make_tiny_sdxl, make_tiny_xl_refiner
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.errors import ManifestError
from sdbatch.job import parse_job
from sdbatch.storage import open_campaign

STILL = {"id": "hero", "prompt": "a red fox", "num_outputs": 2}
EDIT = {"id": "edit", "task": "image-to-image", "prompt": "at night", "images": ["asset:hero/1"], "strength": 0.5}
THIRD = {**EDIT, "id": "third", "images": ["asset:edit/0"]}


def _rows(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**row, "height": 64, "width": 64} for row in rows]


def _made(output: str) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["id"], row["n"]): row for row in sdbatch.metadata(output).to_pylist()}


def _keys(job: dict[str, Any]) -> dict[str, str]:
    manifest = ResolvedManifest(parse_job(job))
    try:
        return {row["id"]: row["request_key"] for part in manifest.parts() for row in part.to_pylist()}
    finally:
        manifest.close()


@LONG_ON_S3
def test_a_row_waits_for_its_source_and_follows_its_content(
    campaign_url: str, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job = job_of(write_manifest(_rows(THIRD, EDIT, STILL)), campaign_url, sources={"allow": []})
    assert sdbatch.check(job).num_warnings == 0
    first = sdbatch.run(job, in_process=True)

    assert (first.exit_code, first.state) == (0, "done")
    assert (first.counts["rows_ok"], first.counts["rows_waiting"], first.counts["rows_failed"]) == (1, 2, 0)
    assert any("waited for outputs that were not there" in line and "asset:hero/1" in line for line in first.warnings)
    assert sdbatch.plan(job).rows == {"new": 1, "reused": 1, "waiting": 1}
    assert sdbatch.plan(job).waiting == {"asset:edit/0": 1}

    second, third = sdbatch.run(job, in_process=True), sdbatch.run(job, in_process=True)
    assert [run.counts["rows_waiting"] for run in (second, third)] == [1, 0]
    assert [run.counts["model_calls"] for run in (second, third)] == [1, 1]
    made = _made(campaign_url)
    assert made["edit", 0]["images"] == ["asset:hero/1"]
    assert made["edit", 0]["source_digests"] == [f"sha256:{made['hero', 1]['sha256']}"]
    # The key is that of a row which names the same file by its path.
    (tmp_path / "copy.png").write_bytes(open_campaign(campaign_url, {}).read(made["hero", 1]["asset"]))
    by_path = {**EDIT, "seed": made["edit", 0]["seed"], "images": [str(tmp_path / "copy.png")]}
    plain = job_of(write_manifest(_rows(by_path), name="by-path"), str(tmp_path / "other"))
    assert _keys(plain)["edit"] == made["edit", 0]["request_key"]

    # The still is another one now: the edit of the old one is gone from the metadata, and made anew by the run after.
    changed = {**job, "manifest": write_manifest(_rows(EDIT, {**STILL, "prompt": "a grey fox"}), name="changed")}
    runs = [sdbatch.run(changed, in_process=True) for _ in range(2)]
    assert [run.counts["rows_waiting"] for run in runs] == [1, 0]
    again = _made(campaign_url)
    assert {name: row["request_key"] for name, row in again.items()}.items().isdisjoint(
        {name: row["request_key"] for name, row in made.items()}.items()
    )
    assert again["edit", 0]["source_digests"] == [f"sha256:{again['hero', 1]['sha256']}"]
    # Back to the old still: everything is there, and no row waits.
    back = sdbatch.run(job, in_process=True)
    assert (back.counts["model_calls"], back.counts["rows_waiting"]) == (0, 0)
    assert {name: row["request_key"] for name, row in _made(campaign_url).items()} == {
        name: row["request_key"] for name, row in made.items()
    }


def test_a_second_manifest_animates_the_stills_of_the_first(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    models = {
        "tiny": {"path": "builtin:tiny-random", "batch_size": 4},
        "clips": {"path": "builtin:tiny-video", "batch_size": 1, "defaults": {"num_frames": 9}},
    }
    stills = job_of(write_manifest(_rows(STILL)), models=models)
    stills["defaults"] = {**stills["defaults"], "model": "tiny"}
    sdbatch.run(stills, in_process=True)
    clip = {"id": "clip", "task": "image-to-video", "model": "clips", "prompt": "it moves", "images": ["asset:hero/0"]}
    restyled = {**clip, "id": "restyled", "task": "video-to-video", "images": None, "video": "asset:clip/0"}
    job = {**stills, "manifest": write_manifest(_rows(clip, {**restyled, "strength": 0.5}), name="clips")}
    first, second = (sdbatch.run(job, in_process=True, yes=True) for _ in range(2))

    assert [first.counts["rows_waiting"], second.counts["rows_waiting"]] == [1, 0]
    made = _made(job["output"])
    assert {row["status"] for row in made.values()} == {"ok"}
    assert made["clip", 0]["media_type"] == made["restyled", 0]["media_type"] == "video/mp4"
    assert made["restyled", 0]["source_digests"] == [f"sha256:{made['clip', 0]['sha256']}"]
    comparison = sdbatch.api.reproduce(job["output"], "clip")
    assert comparison.is_same_file, comparison

    for wrong, message in (
        ({**clip, "images": ["asset:clip/0"], "id": "a"}, "is video/mp4, where a picture is read"),
        ({**restyled, "video": "asset:hero/0", "id": "a", "strength": 0.5}, "is image/png, where a clip is read"),
    ):
        refused = {**job, "manifest": write_manifest(_rows(clip, wrong), name="wrong")}
        with pytest.raises(ManifestError, match=rf" \(a\): \w+ asset:\w+/0 {message}"):
            sdbatch.plan(refused)


def test_a_second_shard_refines_the_stills_of_the_first(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    make_tiny_sdxl(tmp_path / "base")
    make_tiny_xl_refiner(tmp_path / "refiner")
    models = {name: {"path": str(tmp_path / name), "batch_size": 2} for name in ("base", "refiner")}
    stills = write_manifest(_rows({**STILL, "model": "base"}), name="stills")
    job = job_of(stills, models=models, sources={"allow": []})
    assert sdbatch.run(job, in_process=True).counts["rows_ok"] == 1
    refined = {"task": "image-to-image", "model": "refiner", "prompt": "a red fox", "num_inference_steps": 4}
    scored = {**refined, "id": "scored", "parameters": '{"aesthetic_score": 9.0}'}
    rows = [{**one, "images": ["asset:hero/1"], "seed": 1} for one in ({**refined, "id": "refined"}, scored)]
    second = write_manifest(_rows(*rows), name="refined")
    shutil.copy(Path(second, "part-0.parquet"), Path(stills, "part-1.parquet"))
    run = sdbatch.run(job, in_process=True)

    assert {name: run.counts[name] for name in ("rows_ok", "rows_reused", "rows_waiting")} == {
        "rows_ok": 2,
        "rows_reused": 1,
        "rows_waiting": 0,
    }
    made = _made(job["output"])
    assert {row["strength"] for row in made.values()} == {None, 0.3}, "by the family's own strength"
    assert made["refined", 0]["source_digests"] == [f"sha256:{made['hero', 1]['sha256']}"]
    assert len({row["sha256"] for row in made.values()}) == 4
    still = {**scored, "task": "text-to-image", "id": "still"}
    with pytest.raises(ManifestError, match=r"is not served by refiner \(Stable Diffusion XL Refiner: image-to-"):
        sdbatch.check(job_of(write_manifest(_rows(still), name="wrong"), models=models))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("asset:edit/0", "is an output of this very row"),
        ("asset:hero/8", "names an output that its row does not have; the outputs of hero are 0 to 1"),
        ("asset:heroo/0", r"neither this manifest nor the campaign has; did you mean asset:hero/0\?"),
        ("asset:hero", "is not of the form asset:<id>/<n>"),
        ("asset:hero/01", "is not of the form asset:<id>/<n>"),
        ("asset:../hero/0", "is not of the form asset:<id>/<n>"),
        ("asset:third/0", "closes a circle of rows that wait for each other"),
    ],
)
def test_an_output_that_can_never_be_there_is_refused(
    source: str, message: str, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(_rows(STILL, {**EDIT, "images": [source]}, THIRD)))
    for verb in (sdbatch.check, sdbatch.plan):
        with pytest.raises(ManifestError, match=message) as refused:
            verb(job)
        assert {problem.id for problem in refused.value.problems} <= {"edit", "third"}


def test_what_somebody_rejected_is_no_source(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(_rows(STILL, EDIT)))
    sdbatch.run(job, in_process=True)
    sdbatch.review(job["output"], reject=["hero/1"], by="jane")
    assert sdbatch.plan(job).waiting == {"asset:hero/1": 1}

    sdbatch.review(job["output"], clear=["hero/1"], by="jane")
    assert sdbatch.plan(job).waiting == {}


def test_a_file_that_is_not_the_committed_one_fails_its_row(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(_rows(STILL, EDIT)))
    sdbatch.run(job, in_process=True)
    asset = Path(job["output"], _made(job["output"])["hero", 1]["asset"])
    whole = asset.read_bytes()
    asset.write_bytes(whole + b"\0")
    changed = sdbatch.run(job, in_process=True)
    asset.unlink()
    gone = sdbatch.run(job, in_process=True)
    redone = sdbatch.redo(job, ["hero"], in_process=True)

    assert (changed.exit_code, changed.failures) == (3, {"SourceChanged": 1})
    assert (gone.exit_code, gone.failures) == (3, {"SourceMissing": 1})
    assert redone is not None
    assert hashlib.sha256(asset.read_bytes()).digest() == hashlib.sha256(whole).digest()
    last = sdbatch.run(job, Selection(retry_failed=""), in_process=True)
    assert (last.exit_code, last.counts["rows_ok"]) == (0, 1)


def test_what_is_made_again_is_no_source_meanwhile(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(_rows(STILL, EDIT)))
    sdbatch.run(job, in_process=True)
    sdbatch.run(job, in_process=True)
    for name in ("hero", 1), ("edit", 0):
        Path(job["output"], _made(job["output"])[name]["asset"]).unlink()
    both = sdbatch.redo(job, in_process=True)
    assert both is not None
    assert (both.exit_code, both.counts["rows_ok"], both.counts["rows_waiting"]) == (0, 1, 1)
    assert sdbatch.run(job, in_process=True).counts["rows_ok"] == 1


def test_status_and_plan_say_who_waits(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job = job_of(write_manifest(_rows(STILL, EDIT, THIRD)))
    import yaml

    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    planned = CliRunner().invoke(app, ["plan", str(tmp_path / "job.yaml")])
    sdbatch.run(job, in_process=True)
    status = CliRunner().invoke(app, ["status", job["output"]])

    assert "waiting for asset:hero/1: 1 row" in planned.stdout, planned.output
    assert "1 row made, 0 kept, 0 failed, 2 waiting for outputs that were not there (as of " in status.stdout

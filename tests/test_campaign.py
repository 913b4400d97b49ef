"""A campaign from end to end, on both executors and both stores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXECUTORS_AND_STORES, LONG_ON_S3, asset_digests, prompts
from PIL import Image
from support.servers import end

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.schema import from_parquet
from sdbatch.errors import JobError, ManifestError, StoreRefused, UserError
from sdbatch.storage import open_store

WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[1]
PARTI = Path(__file__).parents[2] / "shared" / "data" / "PartiPrompts.tsv"
KILL_TIMEOUT_S = 240.0


def _draw(path: Path, colour: int = 0) -> str:
    values = np.linspace(0, 255, 96 * 80 * 3).reshape(80, 96, 3) + colour
    Image.fromarray((values % 256).astype(np.uint8)).save(path)
    return str(path)


def _mixed(tmp_path: Path) -> list[dict[str, Any]]:
    """Both tasks, two sizes, several outputs, a negative prompt, the user's own column."""
    source = _draw(tmp_path / "source.png")
    edits = {"task": "image-to-image", "images": [source], "strength": 0.8, "num_inference_steps": 3}
    return [
        *prompts(6, x_group="small"),
        *[{**row, "id": f"wide-{row['id']}", "width": 96, "negative_prompt": "people"} for row in prompts(3)],
        {"id": "many", "prompt": "three of them", "num_outputs": 3, "seed": 7},
        *[{**row, "id": f"edit-{row['id']}", **edits} for row in prompts(3)],
    ]


@EXECUTORS_AND_STORES
def test_a_run_makes_what_is_asked_and_says_so(
    in_process: bool, campaign_url: str, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(_mixed(tmp_path), shards=3), campaign_url)
    result = sdbatch.run(job, in_process=in_process)
    rows = sdbatch.metadata(campaign_url).to_pylist()
    digests = asset_digests(campaign_url)

    assert (result.state, result.exit_code) == ("done", 0)
    assert result.counts["rows_ok"] == 13
    assert result.counts["rows_generated"] == result.counts["assets_put"] == len(digests) == len(rows) == 15
    assert {row["asset"]: row["sha256"] for row in rows} == digests
    assert [row["id"] for row in rows] == [r["id"] for r in _mixed(tmp_path) for _ in range(r.get("num_outputs", 1))]
    many = [row for row in rows if row["id"] == "many"]
    assert [(row["n"], row["seed"]) for row in many] == [(0, 7), (1, 8), (2, 9)]
    assert {(row["width"], row["height"]) for row in rows} == {(64, 64), (96, 64)}
    assert [row["x_group"] for row in rows[:7]] == ["small"] * 6 + [None]
    assert sdbatch.status(campaign_url)["state"] == "done"
    assert sdbatch.verify(campaign_url).is_good


def test_running_again_makes_nothing_and_one_edit_makes_one(
    campaign_url: str, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    def run(rows: list[dict[str, Any]], **changes: Any) -> dict[str, int]:
        return sdbatch.run(job_of(write_manifest(rows), campaign_url, **changes), in_process=True).counts

    rows = prompts(5)
    edited = [*rows[:4], {**rows[4], "prompt": "something else"}]
    first = run(rows)
    old = {row["id"]: row["asset"] for row in sdbatch.metadata(campaign_url).to_pylist()}
    again = run(rows)
    changed = run(edited)
    new = {row["id"]: row["asset"] for row in sdbatch.metadata(campaign_url).to_pylist()}
    back = run(rows)
    more = run([{**rows[0], "num_outputs": 3}, *rows[1:]])

    assert first["rows_generated"] == 5
    assert (again["model_calls"], again["rows_reused"]) == (0, 5)
    assert (changed["rows_generated"], changed["rows_reused"]) == (1, 4)
    assert new != old
    assert back["model_calls"] == 0
    assert more["rows_generated"] == 2
    restored = {row["id"]: row["asset"] for row in sdbatch.metadata(campaign_url).to_pylist() if row["n"] == 0}
    assert restored == old
    assert len(asset_digests(campaign_url)) == 5 + 1 + 2


def test_other_encoder_settings_render_nothing_again(write_manifest: WriteManifest, job_of: JobOf) -> None:
    manifest = write_manifest(prompts(3))
    first = sdbatch.run(job_of(manifest), in_process=True)
    again = sdbatch.run(job_of(manifest, encode={"image": "jpg", "quality": 80}), in_process=True)
    more = sdbatch.run(job_of(write_manifest(prompts(4)), encode={"image": "jpg", "quality": 80}), in_process=True)
    media = [row["media_type"] for row in sdbatch.metadata(first.output).to_pylist()]

    assert (first.counts["rows_generated"], again.counts["model_calls"], again.counts["rows_reused"]) == (3, 0, 3)
    assert more.counts["rows_generated"] == 1
    assert media == ["image/png"] * 3 + ["image/jpeg"]


def test_an_edited_source_makes_its_row_anew(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    sources = [_draw(tmp_path / f"{number}.png", number) for number in range(2)]
    rows = [
        {"id": f"edit-{n}", "prompt": "by night", "task": "image-to-image", "images": source, "strength": 1.0}
        for n, source in enumerate(sources)
    ]
    job = job_of(write_manifest(rows))
    sdbatch.run(job, in_process=True)
    _draw(tmp_path / "1.png", 100)
    planned = sdbatch.plan(job)
    result = sdbatch.run(job, in_process=True)

    assert planned.rows == {"changed": 1, "reused": 1}
    assert planned.changed == {"images": 1}
    assert result.counts["rows_generated"] == 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.long)])
def test_pixels_depend_on_neither_workers_nor_order_nor_executor(
    is_long: bool, ray_cluster: None, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    rows = [*_mixed(tmp_path), *[{**row, "id": f"more-{row['id']}"} for row in prompts(8)]]
    shuffled = [rows[index] for index in np.random.default_rng(3).permutation(len(rows))]

    def digests(name: str, rows: list[dict[str, Any]], *, in_process: bool = False, **changes: Any) -> dict[str, str]:
        output = str(tmp_path / name)
        job = job_of(write_manifest(rows, shards=2, name=f"m-{name}"), output, **changes)
        assert sdbatch.run(job, in_process=in_process).exit_code == 0
        return asset_digests(output)

    two = digests("two", rows)

    assert len(set(two.values())) == len(two) == len(rows) + 2
    if is_long:
        assert digests("one, shuffled", shuffled, workers={"count": 1}) == two
        assert digests("local", rows, in_process=True) == two
    assert digests("local, shuffled", shuffled, in_process=True) == two
    assert digests("seed", rows, in_process=True, seed=12) != two  # sensitive to what it should be


TWELVE: list[tuple[dict[str, Any], str, str]] = [
    ({"id": "good"}, "id", "appears twice"),
    ({"id": "../../etc/passwd"}, "id", "is not an id"),
    ({"task": "text-to-imagine"}, "task", "did you mean text-to-image"),
    ({"model": "sdxl"}, "model", "is not in the job's models"),
    ({"prompt": None}, "prompt", "is missing"),
    ({"height": 500}, "height", "not a multiple of 8; the nearest is 504"),
    ({"num_inference_steps": -3}, "num_inference_steps", "is not in 1..1000"),
    (
        {"task": "image-to-image", "images": ["SOURCE"], "strength": 0.1, "num_inference_steps": 5},
        "strength",
        "leaves no step of 5; at least 0.2",
    ),
    ({"num_outputs": 0}, "num_outputs", "is not in 1..1024"),
    ({"promt": "typo"}, "promt", "did you mean prompt?"),
    ({"task": "image-to-image", "images": ["/etc/passwd"]}, "images", "is outside sources.allow"),
    ({"prompt": "a\0b"}, "prompt", "U+0000"),
]


def test_twelve_kinds_of_bad_rows_are_all_told_and_nothing_is_written(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    source = _draw(tmp_path / "source.png")
    rows: list[dict[str, Any]] = [{"id": "good", "prompt": "fine"}]
    for number, (columns, _, _) in enumerate(TWELVE):
        values = {"images": [source] if columns.get("images") == ["SOURCE"] else columns.get("images")}
        rows.append({"id": f"bad-{number}", "prompt": "p", **columns, **values})
    job = job_of(write_manifest(rows))

    for verb in (sdbatch.check, lambda job: sdbatch.run(job, in_process=True), sdbatch.plan):
        with pytest.raises(ManifestError) as caught:
            verb(job)
        problems = caught.value.problems
        assert len(problems) == caught.value.num_problems == 12
        for number, (_, column, message) in enumerate(TWELVE):
            found = [p for p in problems if p.row == (None if column == "promt" else number + 1)]
            assert [p.column for p in found] == [column]
            assert message in found[0].message
    assert not Path(job["output"]).exists()


def test_a_corrupt_source_costs_its_own_row(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    """On Ray a row without its source is in test_cluster.py."""
    good, bad = _draw(tmp_path / "good.png"), str(tmp_path / "bad.png")
    whole = Path(good).read_bytes()
    Path(bad).write_bytes(whole[: len(whole) // 2])
    edit = {"task": "image-to-image", "strength": 1.0, "prompt": "by night"}
    rows = [
        *prompts(6),
        {"id": "edit-good", "images": [good], **edit},
        {"id": "edit-bad", "images": [bad], **edit},
        {"id": "edit-absent", "images": [str(tmp_path / "absent.png")], **edit},
    ]
    job = job_of(write_manifest(rows))
    result = sdbatch.run(job, in_process=True)
    found = {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}

    assert (result.state, result.exit_code) == ("failed", 3)
    assert result.failures == {"SourceMissing": 1, "SourceUnreadable": 1}
    assert [found[row["id"]]["status"] for row in rows] == ["ok"] * 7 + ["failed"] * 2
    assert found["edit-bad"]["error_type"] == "SourceUnreadable"
    assert "bad.png: not a whole picture" in found["edit-bad"]["error_message"]
    assert found["edit-bad"]["asset"] is None
    again = sdbatch.run(job, in_process=True)
    assert (again.counts["model_calls"], again.exit_code) == (0, 3)
    Path(bad).write_bytes(whole)
    _draw(tmp_path / "absent.png")
    assert sdbatch.run(job, in_process=True).exit_code == 0


def test_failed_rows_are_tried_again_when_asked(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    row = {"id": "edit", "task": "image-to-image", "images": [str(bad)], "strength": 1.0, "prompt": "p"}
    job = job_of(write_manifest([row, *prompts(1)]))
    sdbatch.run(job, in_process=True)

    def tried(retry_failed: str | None) -> int:
        return sdbatch.plan(job, Selection(retry_failed=retry_failed)).rows.get("retry", 0)

    assert [tried(None), tried(""), tried("SourceUnreadable"), tried("BlankOutput")] == [0, 1, 1, 0]


def test_limit_and_only_preview_before_spending(write_manifest: WriteManifest, job_of: JobOf) -> None:
    job = job_of(write_manifest(prompts(6)))
    only = sdbatch.run(job, Selection(only=frozenset({"row-0004"})), in_process=True)
    limited = sdbatch.run(job, Selection(limit=2), in_process=True)

    assert only.counts["rows_generated"] == 1
    assert limited.counts["rows_generated"] == 2
    made = [row["id"] for row in sdbatch.metadata(job["output"]).to_pylist()]
    assert made == ["row-0000", "row-0001", "row-0004"]
    with pytest.raises(JobError, match=r"^nobody: the manifest has no such id"):
        sdbatch.run(job, Selection(only=frozenset({"nobody"})), in_process=True)
    assert sdbatch.plan(job).rows == {"new": 3, "reused": 3}


@LONG_ON_S3
def test_redo_makes_what_is_missing_or_damaged_and_nothing_else(
    campaign_url: str, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(prompts(5)), campaign_url)
    sdbatch.run(job, in_process=True)
    before = asset_digests(campaign_url)
    assert sdbatch.redo(job, in_process=True) is None
    store = open_store(campaign_url, {})
    missing, damaged = sorted(before)[:2]
    store.delete(missing)
    store.put(damaged, store.read(damaged)[:-20] + bytes(20))
    kinds = {finding.asset: finding.kind for finding in sdbatch.verify(campaign_url).findings}
    result = sdbatch.redo(job, in_process=True)

    assert kinds == {missing: "missing", damaged: "damaged"}
    assert result is not None
    assert result.counts["rows_generated"] == 2
    assert asset_digests(campaign_url) == before
    assert sdbatch.verify(campaign_url).is_good


def test_redo_clears_a_file_out_of_an_assets_way(write_manifest: WriteManifest, job_of: JobOf, tmp_path: Path) -> None:
    job = job_of(write_manifest(prompts(2)))
    sdbatch.run(job, in_process=True)
    asset = tmp_path / "campaign" / sdbatch.metadata(job["output"]).column("asset").to_pylist()[1]
    good = asset.read_bytes()
    shutil.rmtree(tmp_path / "campaign" / "runs")
    asset.write_bytes(b"half of somebody's file")
    blocked = sdbatch.run(job, in_process=True)

    assert (blocked.exit_code, blocked.failures) == (3, {"AssetConflict": 1})
    assert [finding.kind for finding in sdbatch.verify(job["output"]).findings] == ["damaged"]
    redone = sdbatch.redo(job, in_process=True)
    assert redone is not None
    assert (redone.exit_code, redone.counts["rows_generated"]) == (0, 1)
    assert asset.read_bytes() == good
    assert sdbatch.verify(job["output"]).is_good


def test_outputs_no_longer_asked_for_leave_the_metadata_and_stay_in_the_store(
    write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(prompts(1, num_outputs=4)))
    sdbatch.run(job, in_process=True)
    job = job_of(write_manifest(prompts(1, num_outputs=2)))
    result = sdbatch.run(job, in_process=True)

    assert result.counts["model_calls"] == 0
    assert sdbatch.metadata(job["output"]).column("n").to_pylist() == [0, 1]
    assert len(asset_digests(job["output"])) == 4


def test_a_torn_commit_is_found_and_mended_by_removing_it(write_manifest: WriteManifest, job_of: JobOf) -> None:
    job = job_of(write_manifest(prompts(6)))
    sdbatch.run(job, in_process=True)
    before = asset_digests(job["output"])
    torn = next(Path(job["output"]).glob("runs/*/commits/*.parquet"))
    torn.write_bytes(torn.read_bytes()[:-9])
    findings = sdbatch.verify(job["output"]).findings

    assert ("commit", str(torn.relative_to(job["output"]))) in {(found.kind, found.asset) for found in findings}
    with pytest.raises(UserError, match=r"not a readable commit .* remove it and run again"):
        sdbatch.run(job, in_process=True)
    torn.unlink()
    findings = sdbatch.verify(job["output"]).findings
    assert ("missing", str(torn.relative_to(job["output"]))) in {(found.kind, found.asset) for found in findings}
    redone = sdbatch.redo(job, in_process=True)
    assert redone is not None
    assert redone.counts["assets_adopted"] == 4
    assert asset_digests(job["output"]) == before
    assert sdbatch.verify(job["output"]).is_good


@LONG_ON_S3
def test_resume_reads_indexes_and_the_commits_they_do_not_cover(
    campaign_url: str, write_manifest: WriteManifest, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdbatch.campaign.index.INDEX_EVERY_COMMITS", 2)
    job = job_of(write_manifest(prompts(20)), campaign_url)
    sdbatch.run(job, in_process=True)
    store = open_store(campaign_url, {})
    for entry in store.list("runs"):
        if entry.path.endswith(("snapshot.parquet", "index/000002.parquet")):
            store.delete(entry.path)
    indexes = [entry.path for entry in store.list("runs") if layout.is_index(entry.path)]
    covered = {path for index in indexes for path in from_parquet(store.read(index)).column("commit").to_pylist()}
    again = sdbatch.run(job, in_process=True)

    assert len(_commits(campaign_url)) == 5
    assert (len(indexes), len(covered)) == (2, 4)
    assert (again.counts["model_calls"], again.counts["rows_reused"]) == (0, 20)
    assert sdbatch.metadata(campaign_url).num_rows == 20


def test_an_empty_manifest_is_a_campaign_of_nothing(tmp_path: Path, job_of: JobOf) -> None:
    (tmp_path / "empty.csv").write_text("id,prompt\n")
    sdbatch.build_manifest(tmp_path / "empty.csv", tmp_path / "empty")
    job = job_of(str(tmp_path / "empty"))

    assert sdbatch.check(job).rows == 0
    assert sdbatch.run(job, in_process=True).exit_code == 0
    assert sdbatch.metadata(job["output"]).num_rows == 0
    assert sdbatch.verify(job["output"]).is_good


@pytest.mark.parametrize("output", ["{tmp}/file", "{tmp}/file/below", "/proc/nowhere"])
def test_an_output_that_cannot_be_written_is_refused(
    output: str, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreRefused, match=r"cannot be written to|is a file"):
        sdbatch.run(job_of(write_manifest(prompts(1)), output.format(tmp=tmp_path)), in_process=True)


@pytest.mark.ray
def test_a_cluster_where_nothing_listens_is_said_at_once(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = _job_file(tmp_path, job_of(write_manifest(prompts(1))))
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "sdbatch", "run", str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    assert done.returncode == 1
    assert "no Ray cluster at RAY_ADDRESS 127.0.0.1:1" in done.stderr


def test_missing_sources_are_told_before_the_run(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    absent = str(tmp_path / "absent.png")
    row = {"id": "a", "prompt": "p", "task": "image-to-image", "images": absent, "strength": 1.0}

    assert sdbatch.plan(job_of(write_manifest([row]))).sources_missing == [absent]


def test_assets_say_how_they_were_made(write_manifest: WriteManifest, job_of: JobOf) -> None:
    from sdbatch.encode.asset import read_embedded

    job = job_of(write_manifest(prompts(2)), encode={"image": "webp"})
    sdbatch.run(job, in_process=True)

    for row in sdbatch.metadata(job["output"]).to_pylist():
        embedded = read_embedded((Path(job["output"]) / row["asset"]).read_bytes(), "webp")
        assert embedded is not None
        assert (embedded["request_key"], embedded["n"]) == (row["request_key"], row["n"])
        assert embedded["recipe"] == json.loads(row["recipe"])
        assert embedded["recipe"]["prompt"] == row["prompt"]


def test_the_same_name_from_a_killed_attempt_is_adopted(write_manifest: WriteManifest, job_of: JobOf) -> None:
    job = job_of(write_manifest(prompts(3)))
    sdbatch.run(job, in_process=True)
    before = asset_digests(job["output"])
    (run,) = Path(job["output"]).glob("runs/*")
    for written in [*run.glob("commits/*.parquet"), run / "snapshot.parquet"]:
        written.unlink()  # as if the worker, and then the driver, had died between the assets and the commit
    result = sdbatch.run(job, in_process=True)

    assert (result.counts["assets_put"], result.counts["assets_adopted"]) == (0, 3)
    assert asset_digests(job["output"]) == before


def test_too_many_failures_stop_a_hopeless_job(write_manifest: WriteManifest, tmp_path: Path, job_of: JobOf) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    rows = [
        {"id": f"edit-{n}", "task": "image-to-image", "images": [str(bad)], "strength": 1.0, "prompt": f"p{n}"}
        for n in range(400)
    ]
    result = sdbatch.run(
        job_of(write_manifest(rows), models={"tiny": {"path": "builtin:tiny-random", "batch_size": 1}}), in_process=True
    )

    assert (result.state, result.exit_code) == ("stopped", 3)
    assert 100 <= result.counts["rows_failed"] < 400
    assert "limits.failed_fraction" in (result.message or "")


@pytest.mark.long
@pytest.mark.s3
def test_the_demo_runs_with_everything_in_a_bucket(s3_endpoint: str, tmp_path: Path) -> None:
    import runpy

    bucket = f"s3://campaigns/{tmp_path.name}"
    rows = (ROOT / "manifests/demo.csv").read_text().replace("manifests/demo/images/", f"{bucket}/images/")
    (tmp_path / "demo.csv").write_text(rows)
    sdbatch.build_manifest(tmp_path / "demo.csv", tmp_path / "demo", shards=2)
    files = runpy.run_path(str(ROOT / "manifests/draw_demo.py"))["sources"]()
    store = open_store(bucket, {})
    for shard in (tmp_path / "demo").iterdir():
        store.put(f"manifest/{shard.name}", shard.read_bytes())
    for name, data in files.items():
        store.put(f"images/{name}", data)
    changes = [f"manifest={bucket}/manifest/", f"output={bucket}/out", f"sources.allow=['{bucket}/images/']"]
    changes.append("models.tiny-sd.path=builtin:tiny-random")
    job = sdbatch.load_job(ROOT / "k8s/overlays/local/job.yaml", changes)
    first = sdbatch.run(job, in_process=True)
    again = sdbatch.run(job, in_process=True)
    _draw(tmp_path / "beach.png")
    store.put("images/beach.png", (tmp_path / "beach.png").read_bytes())

    assert (first.counts["rows_ok"], first.counts["assets_put"]) == (25, 29)
    assert again.counts["model_calls"] == 0
    assert sdbatch.plan(job).changed == {"images": 5}
    assert {row["source_digests"][0][:5] for row in sdbatch.metadata(job).to_pylist() if row["images"]} == {"etag:"}


@pytest.mark.s3
def test_wrong_credentials_stop_a_run_before_it_starts(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(StoreRefused, match="refused the credentials"):
        sdbatch.run(job_of(write_manifest(prompts(1)), "s3://campaigns/never"), in_process=True)


# --- killed in the middle -------------------------------------------------------------------------------------------


def _parti(folder: Path, count: int) -> str:
    if not PARTI.is_file():
        pytest.skip("needs PartiPrompts.tsv beside the project")
    lines = PARTI.read_text(encoding="utf-8").splitlines()
    source = folder / "parti.tsv"
    source.write_text("\n".join(lines[: count + 1]) + "\n", encoding="utf-8")
    sdbatch.build_manifest(
        source,
        folder / "parti",
        shards=8,
        rename={"Prompt": "prompt", "Category": "x_category", "Challenge": "x_challenge"},
        drop=["Note"],
        id_format="parti-{row:04d}",
    )
    return str(folder / "parti")


def _job_file(folder: Path, job: dict[str, Any]) -> Path:
    path = folder / "job.json.yaml"  # JSON is YAML
    path.write_text(json.dumps(job))
    return path


def _start(job: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sdbatch", "run", str(job), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _finish(job: Path) -> dict[str, Any]:
    process = _start(job)
    try:
        output, _ = process.communicate(timeout=KILL_TIMEOUT_S)
    finally:
        end(process)
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(output)
    return result


def _commits(output: str) -> list[str]:
    return [entry.path for entry in open_store(output, {}).list("runs") if layout.is_commit(entry.path)]


def _wait_for_commits(output: str, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + KILL_TIMEOUT_S
    while len(_commits(output)) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline_s, "no commits came"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.s3
def test_real_prompts_survive_a_kill_of_driver_and_workers(s3_endpoint: str, tmp_path: Path, job_of: JobOf) -> None:
    """The whole file takes a minute a run, so a part of it is the default; `SDBATCH_PARTI=1632` asks for all."""
    campaign_url = f"s3://campaigns/{tmp_path.name}"
    count = int(os.environ.get("SDBATCH_PARTI", "300"))
    models = {"tiny": {"path": "builtin:tiny-random", "batch_size": 8}}
    job = _job_file(tmp_path, job_of(_parti(tmp_path, count), campaign_url, models=models))
    store = open_store(campaign_url, {})
    process = _start(job)
    try:
        _wait_for_commits(campaign_url, 6, process)
    finally:
        end(process)  # SIGKILL to the driver, the raylet and every worker
    killed_at = _commits(campaign_url)
    committed = sum(read_commit(store, path, ["id"]).num_rows for path in killed_at)
    written = len(asset_digests(campaign_url))
    second = _finish(job)
    third = _finish(job)
    rows = sdbatch.metadata(campaign_url)
    digests = asset_digests(campaign_url)

    assert 0 < committed < count
    assert second["counts"]["rows_ok"] == second["counts"]["rows_generated"] == count - committed
    # What was made before and is made again: only assets of units in flight, two for each of two workers.
    again = second["counts"]["assets_adopted"]
    assert again == written - committed
    units = sorted(read_commit(store, path, ["id"]).num_rows for path in _commits(campaign_url))
    assert again <= 2 * 2 * units[-1]
    assert third["counts"]["model_calls"] == 0
    assert set(rows.column("status").to_pylist()) == {"ok"}
    assert rows.num_rows == len(set(rows.column("id").to_pylist())) == len(digests) == count
    assert dict(zip(rows.column("asset").to_pylist(), rows.column("sha256").to_pylist(), strict=True)) == digests
    assert len(set(digests.values())) == count
    assert set(rows.column("x_category").to_pylist()) >= {"Abstract"}
    sys.stdout.write(f"{count} rows: {committed} committed at the kill, {written} written, {again} met again\n")


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_lets_what_is_in_flight_end_and_the_run_go_on_later(
    ray_cluster: None, tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)  # one that is there starts sooner
    output = tmp_path / "interrupted"
    job = _job_file(tmp_path, job_of(write_manifest(prompts(2000)), str(output), workers={"count": 1}))
    process = _start(job, "--allow-open-ray")
    try:
        _wait_for_commits(str(output), 2, process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=KILL_TIMEOUT_S)
    finally:
        end(process)
    result = json.loads(said)

    assert process.returncode == 130
    assert result["state"] == sdbatch.status(str(output))["state"] == "interrupted"
    assert 0 < result["counts"]["rows_ok"] < 2000
    assert len(asset_digests(str(output))) == result["counts"]["rows_ok"]

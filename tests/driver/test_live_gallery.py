"""The gallery while a run goes on, after it was stopped, and at its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import prompts
from PIL import Image
from support.galleries import columns_of, state_of

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.write import put_commit
from sdbatch.driver import gallery
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.run import run_job
from sdbatch.errors import LeaseLost, StoreUnavailable
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent, Snapshot
from sdbatch.storage import open_store

WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]


class _Watch(Silent):
    """Looks into the gallery once so many outputs have ended, and can ask the run to stop then."""

    def __init__(self, output: str, ended: int, *, stop: bool = False) -> None:
        self._output = output
        self._ended = ended
        self._stop = stop
        self.states: list[dict[str, Any]] = []

    def show(self, snapshot: Snapshot) -> None:
        state = Path(self._output, "report", "state.js")
        if snapshot.outputs_ended < self._ended:
            return
        until_s = time.monotonic() + 60
        while not self._stop and not self.states and not state.exists() and time.monotonic() < until_s:
            time.sleep(0.01)
        if state.exists():
            self.states.append(state_of(Path(self._output)))
        if self._stop:
            self._stop = False
            signal.raise_signal(signal.SIGINT)


def _run(job: dict[str, Any], progress: Silent) -> RunResult:
    return run_job(parse_job(job), selection=Selection(), in_process=True, progress=progress)


def _ids(folder: Path) -> list[str]:
    return [name for chunk in state_of(folder)["chunks"] for name in columns_of(folder, chunk["name"])["id"]]


def _one_by_one(job: dict[str, Any]) -> dict[str, Any]:
    """Return the job with units so small that one is committed after the other."""
    for model in job["models"].values():
        model["batch_size"] = 1
    return job


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    source = tmp_path / "source.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(source)
    edits = {"task": "image-to-image", "images": [str(source)], "strength": 0.8}
    return [{**row, "x_group": f"g{place}", **(edits if place % 2 else {})} for place, row in enumerate(prompts(4))]


def test_a_run_that_was_interrupted_shows_what_it_made_and_the_next_adds_to_it(
    rows: list[dict[str, Any]], write_manifest: WriteManifest, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    manifest = write_manifest([{**row, "num_outputs": 1, "width": 64 + 8 * place} for place, row in enumerate(rows)])
    job = _one_by_one(job_of(manifest))
    folder = Path(job["output"])
    first = _run(job, _Watch(job["output"], 1, stop=True))
    shown, state = _ids(folder), state_of(folder)

    assert (first.state, state["state"]) == ("interrupted", "interrupted")
    assert 1 <= len(shown) < len(rows)
    assert set(columns_of(folder, state["chunks"][0]["name"])["x_group"]) <= {"g0", "g1", "g2", "g3"}
    assert (state["made"], state["pending"]) == (len(shown), len(rows))
    watch = _Watch(job["output"], 1)
    second = _run(job, watch)
    assert (second.state, state_of(folder)["state"]) == ("done", "done")
    assert watch.states[0]["total"] >= len(shown)  # what the first run left is there from the beginning
    assert _ids(folder) == [row["id"] for row in rows]


def test_the_end_of_a_run_leaves_no_file_that_its_gallery_does_not_name(
    rows: list[dict[str, Any]], write_manifest: WriteManifest, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    job = _one_by_one(job_of(write_manifest(rows)))
    folder = Path(job["output"], "report")
    folder.mkdir(parents=True)
    for name in ("page-2.html", "notes.txt"):
        (folder / name).write_text("of before")
    _run(job, _Watch(job["output"], 1))
    left = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))
    state = state_of(folder.parent)
    columns = columns_of(folder.parent, state["chunks"][0]["name"])

    assert [name for name in left if "/" not in name] == ["index.html", "notes.txt", "state.js"]
    assert sorted(name.partition("/")[0] for name in left if "/" in name) == ["data", "recipes", "sources", "thumbs"]
    assert [ref >= 0 for ref in columns["sources"]] == [False, True, False, True]
    assert len(set(columns["sources"])) == 2  # one source, packed once


def test_a_gallery_that_cannot_be_written_does_not_end_the_run(
    rows: list[dict[str, Any]], write_manifest: WriteManifest, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    job = _one_by_one(job_of(write_manifest(rows[:2])))
    asked = []

    def refuse(*_: object) -> bytes:
        asked.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gallery, "index_page", refuse)
    result = _run(job, _Watch(job["output"], 3))

    assert asked
    assert result.state == "done"


def test_a_dear_write_waits_longer_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    live = gallery.LiveGallery(open_store(str(tmp_path), {}), "r000001-20261126T100000Z")

    def work() -> None:
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass

    monkeypatch.setattr(live, "_confirm", work)
    begun_s = time.monotonic()
    live.tick(dict)
    assert live.stop()

    assert live.cpu_s >= 0.05
    assert live._due_s - begun_s >= live.cpu_s / gallery.CPU_SHARE_MAX


def test_a_lost_lease_writes_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLost("another driver took over")

    live = gallery.LiveGallery(open_store(str(tmp_path), {}), "r000001-20261126T100000Z", lost)
    live.close("stopped", {})

    assert not (tmp_path / "report").exists()


def test_an_edited_prompt_leaves_its_older_version_at_hand(
    rows: list[dict[str, Any]], write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(rows[::2]))
    folder = Path(job["output"])
    _run(job, Silent())
    (first,) = folder.glob("assets/row-0000-*")
    edited = [{**rows[0], "prompt": "another scene"}, rows[2]]
    _run({**job, "manifest": write_manifest(edited, name="edited")}, Silent())
    columns = columns_of(folder, state_of(folder)["chunks"][0]["name"])

    assert columns["older"] == [f"assets/{first.name}", ""]
    assert columns["prompt"] == ["another scene", rows[2]["prompt"]]


def test_report_writes_the_gallery_of_a_run_anew(
    rows: list[dict[str, Any]], write_manifest: WriteManifest, job_of: JobOf
) -> None:
    job = job_of(write_manifest(rows[:1]))
    _run(job, Silent())
    folder = Path(job["output"])
    before = {file.name: file.read_bytes() for file in (folder / "report").rglob("*.js") if file.name != "state.js"}
    (folder / "report" / "state.js").unlink()
    planted = next(folder.glob("report/thumbs/*.js"))
    planted.write_text("alert('a script of a stranger, under the name of ours')")
    sdbatch.report(job["output"])

    assert state_of(folder)["state"] == "done"
    assert {name: next((folder / "report").rglob(name)).read_bytes() for name in before} == before


def test_what_a_write_has_no_time_for_waits_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = "r000001-20261126T100000Z"
    store = open_store(str(tmp_path), {})
    ids = ["one", "two"]
    store.put_new(layout.requests(run, 0), to_parquet(pa.table({"id": ids, "request_key": ["a" * 64, "b" * 64]})))
    live = gallery.LiveGallery(store, run)
    for unit, request_id in enumerate(ids):
        put_commit(store, run, f"{unit:06d}", [{"id": request_id, "request_key": "a" * 64, "status": "failed"}])
        live.committed(f"{unit:06d}")

    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    monkeypatch.setattr(gallery, "WRITE_CPU_S", 0.0)
    live._due_s = 0.0
    live.tick(dict)
    assert live.stop()
    assert state_of(tmp_path)["total"] == 0

    live.close("stopped", {})
    assert _ids(tmp_path) == ids


def test_what_a_failed_write_would_have_shown_waits_for_the_next(tmp_path: Path) -> None:
    run = "r000001-20261126T100000Z"
    store = open_store(str(tmp_path), {})
    store.put_new(layout.requests(run, 0), to_parquet(pa.table({"id": ["one"], "request_key": ["a" * 64]})))
    put_commit(store, run, "000000", [{"id": "one", "request_key": "a" * 64, "status": "failed"}])
    faults = [StoreUnavailable("the store is away for a moment")]

    def confirm() -> None:
        if faults:
            raise faults.pop()

    live = gallery.LiveGallery(store, run, confirm)
    live.committed("000000")
    live._due_s = 0.0
    live.tick(dict)
    assert live.stop()
    assert not faults
    assert not (tmp_path / "report").exists()

    live.close("interrupted", {})
    assert _ids(tmp_path) == ["one"]

"""Whole runs over sources from strangers: what a file does to its decoder costs its own row alone."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.hostile import damaged_avifs, slow_jpeg

import sdbatch
from sdbatch.driver.one_run.session import _as_seen_from_here
from sdbatch.encode.image import read_image
from sdbatch.fetch.bounded.decoder import BoundedDecoder
from sdbatch.fetch.pictures import decode_image
from sdbatch.generate.item import Item
from sdbatch.job import parse_job
from sdbatch.worker.unit import FETCH_MAX_S, _UnitInProgress


@pytest.fixture
def run(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> Callable[..., tuple[Any, dict[str, dict[str, Any]]]]:
    """Runs image-to-image rows over files in this process; returns the result, and the metadata row by id."""

    def call(files: dict[str, bytes]) -> tuple[Any, dict[str, dict[str, Any]]]:
        rows = []
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            rows.append({"id": name.partition(".")[0], "prompt": "a fox", "images": str(tmp_path / name)})
        job = job_of(write_manifest(rows), defaults=_DEFAULTS, limits={"failed_fraction": 1.0})
        result = sdbatch.run(job, in_process=True)
        return result, {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}

    return call


_DEFAULTS = {"task": "image-to-image", "num_inference_steps": 2, "guidance_scale": 3.0, "strength": 1.0}


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 90, 200)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.fault(
    "S6", "damaged AVIFs, and a JPEG that decodes for minutes, in a run", "their rows fail, all others are ok"
)
def test_hostile_files_fail_their_own_rows_and_the_run_goes_on(
    run: Callable[..., tuple[Any, dict[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sdbatch.worker.sources.BoundedDecoder", functools.partial(BoundedDecoder, picture_processor_s=1.0)
    )
    faults = [(fault, data) for data in damaged_avifs() if (fault := _fault(data))]
    evil = [data for _, data in sorted(faults, key=lambda pair: pair[0] != "RuntimeError")[:3]]
    assert len(evil) == 3
    files = {"sound-1.png": _png(), "slow.jpg": slow_jpeg(), "sound-2.png": _png()}
    files |= {f"avif-{number}.avif": data for number, data in enumerate(evil)}
    result, rows = run({**files, "sound-3.png": _png()})

    assert (result.exit_code, result.counts["worker_deaths"]) == (3, 0)
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"sound-1", "sound-2", "sound-3"}
    failed = {name: row for name, row in rows.items() if row["status"] == "failed"}
    assert {row["error_type"] for row in failed.values()} == {"SourceUnreadable"}
    for name, row in failed.items():
        assert f"/{name}." in row["error_message"]
    assert failed["slow"]["error_message"].endswith("decoding it took over 1 s of processor time")


def _fault(data: bytes) -> str:
    """Return the class of what decoding raises in this process, "" for nothing; RuntimeError ended runs once."""
    try:
        decode_image(data, "a", 10**6)
    except Exception as error:  # noqa: BLE001 -- a decoder may raise anything
        return type(error).__name__
    return ""


def test_workers_in_other_folders_see_the_places_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"manifest": "m", "output": "o", "models": {"tiny": {"path": "builtin:tiny-random"}}}
    job = parse_job({**values, "sources": {"allow": ["images/", "s3://brand/2026/"]}})

    assert _as_seen_from_here(job)["sources"]["allow"] == [str(tmp_path / "images"), "s3://brand/2026"]  # type: ignore[index]


@pytest.mark.fault(
    "S6", "many sources that each take long", "a unit that comes further is not overdue; its rows are known"
)
def test_a_fetch_tells_which_rows_are_being_decoded(
    run: Callable[..., tuple[Any, dict[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_told = threading.Event()

    class Patient(BoundedDecoder):
        """Ends with a picture only after it was told of, so that no busy machine misses it."""

        def decode(self, *arguments: Any) -> Any:
            try:
                return super().decode(*arguments)
            finally:
                is_told.wait(60)

    monkeypatch.setattr("sdbatch.worker.sources.BoundedDecoder", functools.partial(Patient, picture_processor_s=1.0))
    monkeypatch.setattr("sdbatch.worker.sources.PROGRESS_S", 0.1)
    told: list[tuple[str, float, tuple[str, ...]]] = []
    enter = _UnitInProgress._enter

    def tell(self: _UnitInProgress, phase: Any, bound_s: float, ids: tuple[str, ...] = ()) -> None:
        told.append((phase, bound_s, ids))
        if "slow" in ids:
            is_told.set()
        enter(self, phase, bound_s, ids)

    monkeypatch.setattr(_UnitInProgress, "_enter", tell)
    run({"slow.jpg": slow_jpeg(), "sound.png": _png()})
    fetching = [ids for phase, bound_s, ids in told if phase == "fetch" and bound_s == FETCH_MAX_S]

    assert fetching[0] == ()
    assert ("slow",) in fetching or ("slow", "sound") in fetching


def test_rows_with_one_source_share_its_pixels(
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[tuple[str, int]] = []
    seen: list[Any] = []

    class Counted(BoundedDecoder):
        """Notes what is decoded."""

        def decode(self, sources: Any, settings: Any, read: Any) -> Any:
            decoded.append((Path(sources[0].url).name, settings.width))
            return super().decode(sources, settings, read)

    def item(**values: Any) -> Item:
        seen.append(values["images"][0])
        return Item(**values)

    monkeypatch.setattr("sdbatch.worker.sources.BoundedDecoder", Counted)
    monkeypatch.setattr("sdbatch.generate.item.Item", item)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    first.write_bytes(_png())
    Image.new("RGB", (64, 64), (200, 9, 9)).save(second)
    rows: list[dict[str, Any]] = [
        {"id": f"a-{number}", "prompt": f"fox {number}", "images": str(first)} for number in range(6)
    ]
    rows += [{"id": "b", "prompt": "fox 0", "images": str(second)}]
    rows += [{"id": "c", "prompt": "fox 0", "images": str(first), "width": 96}]
    job = job_of(write_manifest(rows), defaults=_DEFAULTS)
    result = sdbatch.run(job, in_process=True)
    made = {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}

    assert result.exit_code == 0
    assert sorted(decoded) == [("first.png", 64), ("first.png", 96), ("second.png", 64)]
    assert len({id(pixels) for pixels in seen}) == 3
    assert not any(pixels.flags.writeable for pixels in seen)
    assert len({made[f"a-{number}"]["sha256"] for number in range(6)}) == 6
    shown = {name: read_image(row["source_thumbnail"]) for name, row in _committed(job["output"]).items()}
    assert {name: pixels.shape for name, pixels in shown.items() if name in {"a-5", "c"}} == {
        "a-5": (64, 64, 3),
        "c": (64, 96, 3),
    }
    assert shown["b"][0, 0, 0] > 150 > shown["a-0"][0, 0, 0]


def _committed(output: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a campaign's commits by id."""
    files = sorted(Path(output).rglob("commits/*.parquet"))
    return {row["id"]: row for file in files for row in pq.read_table(file).to_pylist()}

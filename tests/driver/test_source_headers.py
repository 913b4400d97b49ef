"""`check` reads the headers of sources, and names each row whose source a run would refuse."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.clips import H264, encoded, patches
from support.servers import BUCKET
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.rows import source_headers
from sdbatch.errors import ManifestError
from sdbatch.storage import open_store

MakeJob = Callable[..., dict[str, Any]]


def _picture(kind: str = "PNG", size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 40, 40)).save(buffer, kind)
    return buffer.getvalue()


def _pq_png() -> bytes:
    data, body = _picture(), b"cICP" + bytes((9, 16, 0, 1))
    return data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def _float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def _cut_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) * 3 // 4]


SOURCES = {
    "good.png": (_picture(), None),
    "good.jpg": (_picture("JPEG"), None),
    "good.webp": (_picture("WEBP"), None),
    "good.avif": (_picture("AVIF"), None),
    "good.tif": (_picture("TIFF"), None),
    "good.gif": (_picture("GIF"), None),
    "good.bmp": (_picture("BMP"), None),
    "cut.jpg": (_cut_jpeg(), None),  # told when its pixels are read
    "pq.png": (_pq_png(), "its colours have the transfer PQ, which is not read"),
    "float.tif": (_float_tiff(), "holds 32-bit floating-point values"),
    "layers.psd": (b"8BPS\0\1" + b"\0" * 40, "is a Photoshop (PSD) file; pictures are PNG, JPEG"),
    "page.html": (b"<!DOCTYPE html><p>403", "is an HTML file; pictures are PNG, JPEG"),
    "empty.png": (b"", "is empty"),
    "text.jpg": (b"not a picture", "not a picture of PNG, JPEG"),
    "header.png": (b"\x89PNG\r\n\x1a\n\0\0\0", "not a whole picture of"),
    "large.png": (_picture(size=(101, 100)), "101 x 100 pixels are over 10000 (sources.pixels_max)"),
    "large.webp": (_picture("WEBP", (101, 100)), "101 x 100 pixels are over 10000 (sources.pixels_max)"),
    "large.avif": (_picture("AVIF", (101, 100)), "101 x 100 pixels are over 10000 (sources.pixels_max)"),
    "long.bmp": (_picture("BMP") + b"\0" * 200_000, "202454 bytes are over 200000 (sources.bytes_max)"),
}


def _rows(folder: str, names: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": f"row-{number}", "task": "image-to-image", "prompt": "beach", "images": f"{folder}/{name}"}
        for number, name in enumerate(names)
    ]


def _job(job_of: MakeJob, manifest: str, folder: str, **changes: Any) -> dict[str, Any]:
    bounds = {"allow": [folder], "pixels_max": 10_000, "bytes_max": 200_000}
    return job_of(manifest, sources={**bounds, **changes})


@pytest.mark.fault("F35", "pictures of other programs, HDR, too large, empty, damaged", "named at check, by row")
def test_check_names_the_row_of_every_picture_that_would_be_refused(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: MakeJob
) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    for name, (data, _) in SOURCES.items():
        (folder / name).write_bytes(data)
    job = _job(job_of, write_manifest(_rows(str(folder), [*SOURCES, "not-there.png", "large.png"])), str(folder))

    with pytest.raises(ManifestError) as caught:
        sdbatch.check(job)
    found = {(problem.row, problem.column): problem for problem in caught.value.problems}
    refused = {number: said for number, (_, said) in enumerate(SOURCES.values()) if said}
    refused[len(SOURCES) + 1] = "101 x 100 pixels"
    assert {row for row, _ in found} == refused.keys()
    for row, said in refused.items():
        problem = found[row, "images"]
        assert problem.message.startswith(said)


def test_check_counts_the_sources_that_it_read(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: MakeJob
) -> None:
    (tmp_path / "a.png").write_bytes(_picture())
    rows = _rows(str(tmp_path), ["a.png", "a.png", "not-there.png"])
    report = sdbatch.check(_job(job_of, write_manifest(rows), str(tmp_path)))

    assert (report.rows, report.sources, report.sources_read) == (3, 2, 2)


@pytest.mark.fault("F2", "clips of ICtCp, of another codec, a still in the place of a clip", "named at check, by row")
def test_check_names_the_row_of_every_clip_that_would_be_refused(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: MakeJob
) -> None:
    ictcp = ("-c:v", "libx265", "-x265-params", "log-level=0:colormatrix=ictcp:transfer=smpte2084:colorprim=bt2020")
    encoded(tmp_path / "good.mp4", patches(), "-pix_fmt", "yuv420p", *H264)
    encoded(tmp_path / "ictcp.mkv", patches(), "-pix_fmt", "yuv420p10le", *ictcp)
    encoded(tmp_path / "old.avi", patches(), "-c:v", "wmv2")
    (tmp_path / "still.mp4").write_bytes(_picture())
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:600])
    names = ["good.mp4", "ictcp.mkv", "old.avi", "still.mp4", "cut.mp4"]
    rows = [
        {
            "id": f"row-{number}",
            "task": "video-to-video",
            "model": "tiny-video",
            "prompt": "",
            "video": str(tmp_path / name),
        }
        for number, name in enumerate(names)
    ]
    models = {"tiny-video": {"path": "builtin:tiny-video", "batch_size": 1}}
    job = job_of(write_manifest(rows), models=models, sources={"allow": [str(tmp_path)]}, defaults={"strength": 0.5})

    with pytest.raises(ManifestError) as caught:
        sdbatch.check(job)
    found = {problem.row: problem.message for problem in caught.value.problems}
    assert found.keys() == {1, 2, 3, 4}
    assert found[1].startswith("has the colour matrix ictcp")
    assert found[2].startswith("is coded as wmv2")
    assert found[3].startswith("is a PNG file, not an MP4")
    assert found[4].startswith("cannot be opened: ")


@pytest.mark.s3
def test_of_remote_sources_a_sample_is_read_and_all_when_asked_for(
    s3_endpoint: str,
    tmp_path: Path,
    write_manifest: Callable[..., str],
    job_of: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = f"s3://{BUCKET}/{tmp_path.name}-sources"
    store = open_store(folder, {})
    names = [f"{number}.png" for number in range(7)]
    for name in names:
        store.put_new(name, _pq_png() if name == "1.png" else _picture())
    job = _job(job_of, write_manifest(_rows(folder, [*names, "not-there.png"])), folder)
    monkeypatch.setattr(source_headers, "REMOTE_MAX", 2)

    assert (sdbatch.check(job).sources, sdbatch.check(job).sources_read) == (8, 2)
    with pytest.raises(ManifestError, match=r"row 2 of .* its colours have the transfer PQ"):
        sdbatch.check(job, all_sources=True)


def test_the_command_line_says_what_it_did_not_read(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded(tmp_path / "a.mp4", patches(), "-pix_fmt", "yuv420p", *H264)
    rows = [{"id": "a", "task": "video-to-video", "model": "v", "prompt": "", "video": str(tmp_path / "a.mp4")}]
    models = {"v": {"path": "builtin:tiny-video", "batch_size": 1}}
    job = job_of(write_manifest(rows), models=models, sources={"allow": [str(tmp_path)]}, defaults={"strength": 0.5})
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    monkeypatch.setattr(source_headers, "CLIPS_S", -1.0)

    sampled = CliRunner().invoke(app, ["check", str(tmp_path / "job.yaml")])
    assert "headers of 0 of 1 sources (--sources all reads all)" in sampled.output
    whole = CliRunner().invoke(app, ["check", str(tmp_path / "job.yaml"), "--sources", "all"])
    assert whole.exit_code == 0
    assert "headers of" not in whole.output

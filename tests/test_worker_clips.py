"""Clips through the worker: what a row asks for is what lies in the store, and its metadata says so."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.toy_clips import make_ltx, make_ltx2

import sdbatch
from sdbatch.encode.asset import read_embedded, read_frames
from sdbatch.encode.video import encode_video
from sdbatch.generate import batch
from sdbatch.job import Encode

# F frames, H and W pixels, C = 3 channels.

Run = Callable[..., list[dict[str, Any]]]
HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("models")
    for name, make in (("ltx", make_ltx), ("ltx2", make_ltx2)):
        make(folder / name)
    options = {"batch_size": 2, "defaults": {"num_frames": 9}}
    return {name: {"path": str(folder / name), **options} for name in ("ltx", "ltx2")}


@pytest.fixture
def run(models: dict[str, Any], write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Run:
    """Run rows in this process; return their metadata, each with its `file`."""

    def call(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
        shape = {
            "model": "ltx",
            "task": "text-to-video",
            "height": HEIGHT,
            "width": WIDTH,
            "fps": 12.0,
            "num_inference_steps": 2,
        }
        job = job_of(
            write_manifest([{"prompt": "waves", **row} for row in rows]),
            models=models,
            defaults={**shape, "guidance_scale": 3.0},
            **changes,
        )
        sdbatch.run(job, in_process=True)
        made = sdbatch.metadata(job["output"]).to_pylist()
        return [{**row, "file": Path(job["output"], row["asset"] or "")} for row in made]

    return call


def _frames(row: dict[str, Any]) -> NDArray[np.uint8]:
    return read_frames(row["file"].read_bytes(), row["file"].suffix[1:], HEIGHT, WIDTH)


def _explain_error(file: Path) -> str:
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(file)], capture_output=True, text=True).stderr


def test_a_clip_is_stored_with_the_size_count_and_rate_of_its_row(run: Run) -> None:
    rows = run([{"id": "a"}, {"id": "b", "prompt": "dunes"}, {"id": "c", "duration_s": 0.5}])

    assert [(row["status"], row["num_frames"]) for row in rows] == [("ok", 9), ("ok", 9), ("ok", 6)]
    for row in rows:
        assert (row["media_type"], row["width"], row["height"], row["fps"]) == ("video/mp4", WIDTH, HEIGHT, 12.0)
        assert re.search(r"h264.* 96x64.* 12 fps", _explain_error(row["file"]))
        assert len(_frames(row)) == row["num_frames"]
        embedded = read_embedded(row["file"].read_bytes(), "mp4")
        assert embedded is not None
        assert (embedded["request_key"], embedded["num_frames"]) == (row["request_key"], row["num_frames"])
    assert len({row["sha256"] for row in rows}) == 3


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("webm", "opus")])
def test_the_sound_a_model_makes_is_in_the_clip(run: Run, suffix: str, codec: str) -> None:
    rows = run([{"id": "mute"}, {"id": "loud", "model": "ltx2"}], encode={"video": suffix})

    assert [row["error_message"] for row in rows] == [None, None]
    assert [f"Audio: {codec}" in _explain_error(row["file"]) for row in rows] == [False, True]


def test_pictures_and_clips_are_sources_of_clips(run: Run, tmp_path: Path) -> None:
    colours = [(220, 30, 30), (30, 220, 30)]
    for name, colour in zip(("red.png", "green.png"), colours, strict=True):
        Image.new("RGB", (128, 128), colour).save(tmp_path / name)
    for name, colour in zip(("red.mp4", "green.mp4"), colours, strict=True):
        frames_FHWC = np.full((26, 128, 128, 3), colour, np.uint8)
        frames_FHWC[1::2] = 0  # left out at half the rate
        encoded = encode_video(frames_FHWC, 24.0, Encode(), request_key="a" * 64, n=0, recipe="{}")
        (tmp_path / name).write_bytes(encoded.data)
    shared = {"prompt": "waves", "seed": 1}
    clip = {**shared, "task": "video-to-video", "strength": 0.5}
    rows = run(
        [
            {**shared, "id": "first", "task": "image-to-video", "images": [str(tmp_path / "red.png")]},
            {**shared, "id": "other", "task": "image-to-video", "images": [str(tmp_path / "green.png")]},
            {**clip, "id": "clip", "video": str(tmp_path / "red.mp4")},
            {**clip, "id": "other-clip", "video": str(tmp_path / "green.mp4")},
            {**clip, "id": "short", "video": str(tmp_path / "red.mp4"), "num_frames": 25},
        ],
        encode={"video": "webm"},
        limits={"failed_fraction": 1.0},
    )

    assert [row["error_type"] for row in rows] == [None, None, None, None, "SourceTooShort"]
    assert [row["source_digests"] is not None for row in rows] == [True] * 5
    red, green, red_clip, green_clip = (_frames(row).astype(int) for row in rows[:4])
    assert np.abs(red - green).mean() > 1
    assert np.abs(red_clip - green_clip).mean() > 1


def test_a_clip_whose_frames_are_all_the_same_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = batch._to_uint8

    def freeze(video_BFCHW: torch.Tensor) -> tuple[Any, list[bool]]:
        video_BFHWC, finite = original(video_BFCHW)
        video_BFHWC[1] = video_BFHWC[1, :1]
        return video_BFHWC, finite

    monkeypatch.setattr(batch, "_to_uint8", freeze)
    rows = run([{"id": "a"}, {"id": "b", "prompt": "dunes"}], determinism="fast")  # both in one call

    assert [row["error_message"] for row in rows] == [None, "all 9 frames of the clip are the same"]
    assert rows[1]["error_type"] == "BlankOutput"


def test_a_whole_clip_of_a_killed_attempt_is_adopted_and_half_of_one_is_not(run: Run) -> None:
    (row,) = run([{"id": "a"}])
    campaign = row["file"].parent.parent
    whole = encode_video(
        _frames(row), 12.0, Encode(video_crf=40), request_key=row["request_key"], n=0, recipe=row["recipe"]
    ).data
    for data, expected in ((whole, (None, True)), (whole[: len(whole) // 2], ("AssetConflict", None))):
        for folder in ("runs", "metadata", "lease", "report"):
            shutil.rmtree(campaign / folder)
        row["file"].write_bytes(data)
        (again,) = run([{"id": "a"}], limits={"failed_fraction": 1.0})
        assert (again["error_type"], again["adopted"]) == expected

"""One campaign of all six tasks and four models on two workers, its media opened by another program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from support.toy_clips import MAKERS

import sdbatch

MODELS = ("ltx", "ltx2", "wan-i2v-a14b")
BLOCKS = '{"spatio_temporal_guidance_blocks": [1]}'


def _sources(folder: Path) -> dict[str, str]:
    """Draw three pictures and a mask, and a clip of 3 seconds at 10 a second."""
    paths = {name: str(folder / f"{name}.png") for name in ("one", "two", "three", "mask")}
    for seed, path in enumerate(paths.values()):
        patches = np.random.default_rng(seed).integers(0, 2, (4, 4, 3)).astype(np.uint8) * 255
        Image.fromarray(np.kron(patches, np.ones((20, 24, 1), dtype=np.uint8))).save(path)
    paths["clip"] = str(folder / "clip.mp4")
    _ffmpeg("-f", "lavfi", "-i", "testsrc=size=96x80:rate=10", "-frames:v", "30", paths["clip"])
    return paths


def _ffmpeg(*arguments: str) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _rows(paths: dict[str, str]) -> list[dict[str, Any]]:
    one, two, three = paths["one"], paths["two"], paths["three"]
    edit = {"images": [one], "strength": 0.8}
    rows: list[dict[str, Any]] = [
        {"id": "still", "task": "text-to-image", "model": "sd", "width": 96},
        {"id": "edit", "task": "image-to-image", "model": "sd", **edit},
        {"id": "inpaint", "task": "inpainting", "model": "sd", **edit, "mask": paths["mask"]},
        {"id": "ltx-text", "task": "text-to-video", "model": "ltx", "num_frames": 9, "fps": 24000 / 1001},
        {"id": "ltx-image", "task": "image-to-video", "model": "ltx", "num_frames": 9, "images": [one]},
        {"id": "ltx-keys", "task": "image-to-video", "model": "ltx", "num_frames": 17, "keyframes": [0, 8, 16]},
        {"id": "ltx-clip", "task": "video-to-video", "model": "ltx", "num_frames": 17, "fps": 10.0, "strength": 0.5},
        {"id": "wan-one", "task": "image-to-video", "model": "wan-i2v-a14b", "num_frames": 5, "images": [one]},
        {"id": "wan-ends", "task": "image-to-video", "model": "wan-i2v-a14b", "num_frames": 9, "images": [one, two]},
        {"id": "wan-three", "task": "image-to-video", "model": "wan-i2v-a14b", "num_frames": 17},
        {"id": "sound", "task": "text-to-video", "model": "ltx2", "num_frames": 9, "parameters": BLOCKS},
        {"id": "seconds", "task": "text-to-video", "model": "ltx2", "duration_s": 0.5, "parameters": BLOCKS},
        {"id": "talking", "task": "image-to-video", "model": "ltx2", "num_frames": 9, "parameters": BLOCKS},
    ]
    sources: dict[str, dict[str, Any]] = {
        "ltx-keys": {"images": [one, two, three]},
        "wan-three": {"images": [one, two, three]},
        "talking": {"images": [two]},
        "ltx-clip": {"video": paths["clip"]},
    }
    return [{"prompt": f"scene {row['id']}", **row, **sources.get(row["id"], {})} for row in rows]


FRAMES = {
    "ltx-text": 9,
    "ltx-image": 9,
    "ltx-keys": 17,
    "ltx-clip": 17,
    "wan-one": 5,
    "wan-ends": 9,
    "wan-three": 17,
    "sound": 9,
    "seconds": 12,
    "talking": 9,
}
FPS = {
    "ltx-text": 23.98,
    "ltx-image": 25,
    "ltx-keys": 25,
    "ltx-clip": 10,
    "wan-one": 16,
    "wan-ends": 16,
    "wan-three": 16,
}
"""As ffmpeg shows it; the rest have 24."""


@pytest.mark.ray
@pytest.mark.slow
def test_six_tasks_and_four_models_share_two_workers(
    ray_cluster: None, tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    models: dict[str, Any] = {"sd": {"path": "builtin:tiny-random"}}
    for name in MODELS:
        MAKERS[name](tmp_path / name)
        models[name] = {"path": str(tmp_path / name)}
    rows = _rows(_sources(tmp_path))
    defaults = {"height": 64, "width": 64, "num_inference_steps": 2}
    output = str(tmp_path / "campaign")
    job = job_of(write_manifest(rows), output, models=models, defaults=defaults, determinism="fast")

    result = sdbatch.run(job)
    made = {row["id"]: row for row in sdbatch.metadata(output).to_pylist()}

    assert {row["error_message"] for row in made.values()} == {None}
    assert (result.state, result.counts["rows_ok"]) == ("done", len(rows))
    assert {row["task"] for row in made.values()} == set(sdbatch.types.TASKS)
    assert result.counts["model_loads"] <= 2 * len(models)
    assert len({row["sha256"] for row in made.values()}) == len(rows)
    for row in rows:
        asset = Path(output) / made[row["id"]]["asset"]
        if row["id"] in FRAMES:
            _check_clip(asset, FRAMES[row["id"]], FPS.get(row["id"], 24), has_sound=row["model"] == "ltx2")
        else:
            with Image.open(asset) as image:
                assert image.size == (row.get("width", 64), 64)
    assert sdbatch.verify(output).is_good


def _check_clip(asset: Path, num_frames: int, fps: float, *, has_sound: bool) -> None:
    said = _ffmpeg("-i", str(asset), "-map", "0:v", "-f", "null", "-")
    stream = next(line for line in said.splitlines() if "Video: h264" in line)

    assert " 64x64" in stream
    assert f" {fps:g} fps" in stream
    assert int(re.findall(r"frame=\s*(\d+)", said)[-1]) == num_frames
    assert ("Audio: aac" in said) == has_sound

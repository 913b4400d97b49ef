"""Reference pictures, two ControlNets and enlarging, from the manifest to the metadata, in one campaign."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support.toy_models import make_tiny_controlnet
from support.toy_references import make_tiny_ip_adapter
from support.toy_upscalers import make_tiny_x4_upscaler

import sdbatch
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.generate.random_weights import tiny_unet
from sdbatch.job import parse_job
from sdbatch.storage import open_campaign


def _picture(path: Path, turns: int) -> str:
    rows, columns = np.mgrid[0:64, 0:64] * 4
    pixels = np.stack([rows, columns, 255 - rows], -1).astype(np.uint8)
    Image.fromarray(np.rot90(pixels, turns)).save(path)
    return str(path)


def test_stills_follow_references_and_two_controls_and_a_second_run_enlarges_them(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    make_tiny_controlnet(tmp_path / "net")
    make_tiny_ip_adapter(tmp_path / "adapter", tiny_unet())
    make_tiny_x4_upscaler(tmp_path / "x4")
    sources = [_picture(tmp_path / f"{turns}.png", turns) for turns in range(3)]
    led = {"path": "builtin:tiny-random", "batch_size": 4, "controlnet": [str(tmp_path / "net")] * 2}
    models = {
        "led": {**led, "components": {"ip_adapter": {"path": str(tmp_path / "adapter")}}},
        "x4": {"path": str(tmp_path / "x4"), "batch_size": 1, "defaults": {"num_inference_steps": 2}},
    }
    row = {"prompt": "a red fox", "height": 64, "width": 64, "seed": 5}
    controlled = {**row, "control_image": sources[:2]}
    stills = [
        {**row, "id": "plain"},
        {**row, "id": "faced", "ip_adapter_images": sources[:1]},
        {**row, "id": "half", "ip_adapter_images": sources[:1], "ip_adapter_scale": 0.5},
        {**controlled, "id": "led"},
        {**controlled, "id": "both", "ip_adapter_images": sources[2:]},
    ]
    job = job_of(write_manifest(stills), models=models, sources={"allow": [str(tmp_path)]})
    job["defaults"] = {**job["defaults"], "model": "led"}
    assert sdbatch.run(job, in_process=True).exit_code == 0
    made = {name: _of(job, name) for name in ("plain", "faced", "half", "led", "both")}

    assert len({row["sha256"] for row in made.values()}) == len({row["request_key"] for row in made.values()}) == 5
    assert made["both"]["control_image"] == sources[:2]
    assert made["both"]["ip_adapter_images"] == sources[2:]
    assert (len(made["both"]["source_digests"]), made["plain"]["ip_adapter_images"]) == (3, None)
    assert [made[name]["ip_adapter_scale"] for name in ("plain", "faced", "half")] == [None, 1.0, 0.5]
    bare = {**job, "models": {"led": {key: value for key, value in led.items() if key != "controlnet"}}}
    bare = {**bare, "output": str(tmp_path / "bare"), "manifest": write_manifest(stills[:1], name="bare")}
    assert sdbatch.run(bare, in_process=True).exit_code == 0
    assert _of(bare, "plain")["sha256"] == made["plain"]["sha256"], "an adapter and nets beside it move a plain row"
    assert sdbatch.api.reproduce(job["output"], "both", job=job).is_same_file

    large = {"id": "large", "task": "image-to-image", "model": "x4", "prompt": "a red fox", "images": ["asset:both/0"]}
    wrong = {**large, "id": "wrong", "height": 128, "width": 128}
    job["manifest"] = write_manifest([*stills, large, wrong], name="large")
    with closing(ResolvedManifest(parse_job(job))) as resolved:
        shapes = [shape for part in resolved.parts(["shape"]) for shape in part.column("shape").to_pylist()]
    assert [shape for shape in shapes if "256x256" in shape] == shapes[-2:], "each is priced at four times its still"
    second = sdbatch.run(job, in_process=True)
    assert (second.counts["rows_ok"], second.counts["rows_failed"]) == (1, 1)
    enlarged = _of(job, "large")
    picture = Image.open(io.BytesIO(open_campaign(job["output"], {}).read(enlarged["asset"])))
    assert picture.size == (enlarged["width"], enlarged["height"]) == (256, 256)
    assert enlarged["source_digests"] == [f"sha256:{made['both']['sha256']}"]
    assert "which become 256 x 256; the row says 128 x 128" in _of(job, "wrong")["error_message"]
    assert sdbatch.api.reproduce(job["output"], "large", job=job).is_same_file


def _of(job: dict[str, Any], name: str) -> dict[str, Any]:
    row: dict[str, Any]
    (row,) = (row for row in sdbatch.metadata(job["output"]).to_pylist() if row["id"] == name)
    return row

"""A row that enlarges is priced at its own size: so many times that of its source."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.toy_upscalers import make_tiny_x4_upscaler

from sdbatch.driver.rows import source_sizes
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.driver.rows.source_sizes import SourceSizes
from sdbatch.job import parse_job


def test_rows_that_enlarge_are_priced_by_their_sources(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    make_tiny_x4_upscaler(tmp_path / "x4")
    sizes = {"small": (32, 48), "large": (256, 192)}
    for name, size in sizes.items():
        Image.new("RGB", size, (9, 90, 200)).save(tmp_path / f"{name}.png")
    row = {"task": "image-to-image", "prompt": "a red fox", "seed": 5}
    rows = [{**row, "id": name, "images": [str(tmp_path / f"{name}.png")]} for name in ("small", "large", "gone")]
    rows.append({**rows[0], "id": "said", "height": 192, "width": 128})
    models = {"x4": {"path": str(tmp_path / "x4"), "batch_size": 1, "defaults": {"num_inference_steps": 2}}}
    job = job_of(write_manifest(rows), models=models, sources={"allow": [str(tmp_path)]})
    job["defaults"] = {"model": "x4"}

    with closing(ResolvedManifest(parse_job(job))) as manifest:
        (part,) = manifest.parts(["id", "shape", "cost_tflop", "batch_key"])
    found = {one["id"]: one for one in part.to_pylist()}

    pixels = {"small": 128 * 192, "large": 1024 * 768, "gone": 512 * 512, "said": 128 * 192}
    words = {"small": "128x192", "large": "1024x768", "gone": "512x512", "said": "128x192"}
    assert {name: one["shape"].split(" ")[1] for name, one in found.items()} == words
    assert found["small"]["shape"] == found["said"]["shape"]
    per_pixel = {one["cost_tflop"] / pixels[name] for name, one in found.items()}
    assert max(per_pixel) == pytest.approx(min(per_pixel)), "work is linear in pixels"
    assert found["small"]["cost_tflop"] > 0
    assert found["small"]["batch_key"] == found["large"]["batch_key"], "a price is no part of what shares a call"


def test_of_sources_in_a_store_only_the_first_few_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Store:
        def read_range(self, name: str, _start: int, _length: int) -> bytes:
            asked.append(name)
            raise OSError("no such bucket")

    monkeypatch.setattr(source_sizes, "open_store", lambda *_: Store())
    sizes = SourceSizes(parse_job({"manifest": "m", "output": "o", "models": {"m": {"path": "/m"}}, "seed": 1}))
    found = {sizes.of(f"s3://b/{number}.png") for number in [*range(source_sizes.REMOTE_MAX + 5), 0]}

    assert found == {None}
    assert asked == [f"{number}.png" for number in range(source_sizes.REMOTE_MAX)]

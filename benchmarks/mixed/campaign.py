"""Draws the campaign: a manifest of mixed rows, and the pictures that some of them edit.

    write(folder, rows, seed) --> manifest.parquet, sources/*.jpg

Two models, four sizes, three step counts, a guidance a row; one row in three edits one of 40 sources, one prompt in
four was there before, and one row in 240 is a clip. The order is drawn too, as when several people add to a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MODELS: Final = ("t", "u")
CLIPS_MODEL: Final = "clips"
SIZES_HW: Final = ((64, 64), (64, 96), (96, 64), (80, 80))
STEPS: Final = (2, 3, 4)
GUIDANCES: Final = (4.0, 5.5, 7.5, 9.0)
STRENGTH: Final = 0.6
SOURCES: Final = 40
SOURCE_PX: Final = 512
EDITS_IN: Final = 3
REPEATED_IN: Final = 4
CLIPS_IN: Final = 240
CLIP_HW: Final = (64, 64)
FRAMES: Final = 8
FPS: Final = 8.0

SCHEMA: Final = pa.schema(
    {
        "id": pa.string(),
        "task": pa.string(),
        "model": pa.string(),
        "prompt": pa.string(),
        "images": pa.list_(pa.string()),
        "height": pa.int32(),
        "width": pa.int32(),
        "num_frames": pa.int32(),
        "fps": pa.float64(),
        "num_inference_steps": pa.int32(),
        "guidance_scale": pa.float64(),
        "strength": pa.float64(),
        "seed": pa.int64(),
    }
)


def write(folder: Path, rows: int, seed: int) -> Path:
    """Write the sources and the manifest of so many rows; return the manifest."""
    sources = _sources(folder / "sources", seed)
    drawn = np.random.default_rng(seed)
    prompts: list[str] = []
    table = []
    for number in range(rows):
        is_repeated = prompts and number % REPEATED_IN == REPEATED_IN - 1
        prompt = (
            prompts[drawn.integers(len(prompts))] if is_repeated else f"scene number {number} of an old town by the sea"
        )
        prompts.append(prompt)
        kind = _kind(number, drawn, sources)
        table.append({"id": f"row-{number:06d}", "prompt": prompt, "seed": seed + number, **kind})
    table = [table[place] for place in drawn.permutation(rows)]
    file = folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), file)
    return file


def _kind(number: int, drawn: np.random.Generator, sources: list[str]) -> dict[str, Any]:
    """Return what a row is: a clip, an edit or a picture from its text."""
    steps, guidance = STEPS[drawn.integers(len(STEPS))], GUIDANCES[drawn.integers(len(GUIDANCES))]
    height, width = SIZES_HW[drawn.integers(len(SIZES_HW))]
    shared: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    if number % CLIPS_IN == 0:
        height, width = CLIP_HW
        size = {"height": height, "width": width, "num_frames": FRAMES, "fps": FPS}
        return {"task": "text-to-video", "model": CLIPS_MODEL, **size, **shared}
    shared |= {"model": MODELS[drawn.integers(len(MODELS))], "height": height, "width": width}
    if number % EDITS_IN == 1:
        return {
            "task": "image-to-image",
            "images": [sources[drawn.integers(len(sources))]],
            "strength": STRENGTH,
            **shared,
        }
    return {"task": "text-to-image", **shared}


def _sources(folder: Path, seed: int) -> list[str]:
    """Write pictures of coarse noise made smooth, which is as dear to decode as a photograph; return their paths."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    paths = [folder / f"{number}.jpg" for number in range(SOURCES)]
    for path in paths:
        coarse_HWC = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse_HWC).resize((SOURCE_PX, SOURCE_PX), Image.Resampling.BICUBIC)
        picture.save(path, quality=90)
    return [str(path) for path in paths]

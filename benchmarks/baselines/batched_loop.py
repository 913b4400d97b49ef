"""The loop with lists of prompts: sixteen rows a call."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline

from benchmarks import probe, settings


def main(manifest: Path, folder: Path, output: Path) -> None:
    """Render a manifest."""
    probe.install()
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    rows = pq.read_table(manifest).to_pylist()
    for start in range(0, len(rows), settings.BATCH_SIZE):
        batch = rows[start : start + settings.BATCH_SIZE]
        generators = [torch.Generator("cpu").manual_seed(row["seed"]) for row in batch]
        images = pipe([row["prompt"] for row in batch], generator=generators, **settings.arguments()).images
        for row, image in zip(batch, images, strict=True):
            image.save(output / f"{row['id']}.png")

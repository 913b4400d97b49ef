"""The loop everybody begins with: one row, one call, one file."""

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
    for row in pq.read_table(manifest).to_pylist():
        generator = torch.Generator("cpu").manual_seed(row["seed"])
        image = pipe(row["prompt"], generator=generator, **settings.arguments()).images[0]
        image.save(output / f"{row['id']}.png")

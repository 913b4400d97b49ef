"""The bare pipeline calls: the batches of the other arms, two processes, tensors that nobody reads and no files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import probe, settings

PROCESSES = 2


def main(manifest: Path, folder: Path, _: Path) -> None:
    """Call the pipeline for every batch of a manifest."""
    command = [sys.executable, "-m", "benchmarks.baselines.bare", str(manifest), str(folder)]
    running = [subprocess.Popen([*command, str(number)]) for number in range(PROCESSES)]
    failed = [process.args for process in running if process.wait()]
    if failed:
        raise RuntimeError(f"ended with an error: {failed}")


def call(manifest: Path, folder: Path, number: int) -> None:
    """Make every second batch, as one of two actors that take turns."""
    import torch
    from diffusers import StableDiffusionPipeline

    probe.install()
    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    rows = pq.read_table(manifest).to_pylist()
    for start in range(number * settings.BATCH_SIZE, len(rows), PROCESSES * settings.BATCH_SIZE):
        batch = rows[start : start + settings.BATCH_SIZE]
        generators = [torch.Generator("cpu").manual_seed(row["seed"]) for row in batch]
        pipe([row["prompt"] for row in batch], generator=generators, output_type="pt", **settings.arguments())


if __name__ == "__main__":
    call(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

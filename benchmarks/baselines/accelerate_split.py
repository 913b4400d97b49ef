"""accelerate's split_between_processes, two processes, sixteen rows a call (its guide gives one call a list, too).

The rows are split once, before anything is known of their cost.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline

from benchmarks import probe, settings


def main(manifest: Path, folder: Path, output: Path) -> None:
    """Render a manifest with two processes."""
    # On CPUs `accelerate launch` starts processes through MPI only; torch's own launcher sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "benchmarks.baselines.accelerate_split", str(manifest), str(folder), str(output)]
    subprocess.run([*launch, *script], check=True)


def split(manifest: Path, folder: Path, output: Path) -> None:
    """Render this process's share."""
    from accelerate import PartialState

    probe.install()
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    state = PartialState(cpu=True)
    with state.split_between_processes(pq.read_table(manifest).to_pylist()) as rows:
        for start in range(0, len(rows), settings.BATCH_SIZE):
            batch = rows[start : start + settings.BATCH_SIZE]
            generators = [torch.Generator("cpu").manual_seed(row["seed"]) for row in batch]
            images = pipe([row["prompt"] for row in batch], generator=generators, **settings.arguments()).images
            for row, image in zip(batch, images, strict=True):
                image.save(output / f"{row['id']}.png")
    state.destroy_process_group()


if __name__ == "__main__":
    split(*(Path(argument) for argument in sys.argv[1:4]))

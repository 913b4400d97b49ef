"""Ray Data as its guide to batch inference has it: read_parquet, map_batches with a class and an actor pool.

`documented` stops there; `tuned` adds what one finds out by looking at the actors: Ray Data reads a manifest into one
block, and one actor of the pool gets it, unless the rows are repartitioned into a block a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from benchmarks import probe, settings
from benchmarks.lab import start_ray

WORKERS = 2
NUM_CPUS = 4
"""Two actors on two cores would leave Ray Data none to read with: it waits for ever, without a word (2.60)."""


class Generator:
    """Loads the pipeline once an actor."""

    def __init__(self, folder: str, output: str) -> None:
        import torch
        from diffusers import StableDiffusionPipeline

        probe.install()
        torch.set_num_threads(1)
        self._pipe = StableDiffusionPipeline.from_pretrained(folder)
        self._pipe.set_progress_bar_config(disable=True)
        self._output = Path(output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Render a batch and write its files; the rows go on as they came."""
        import torch

        generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in batch["seed"]]
        images = self._pipe(list(batch["prompt"]), generator=generators, **settings.arguments()).images
        for name, image in zip(batch["id"], images, strict=True):
            image.save(self._output / f"{name}.png")
        return batch


def documented(manifest: Path, folder: Path, output: Path) -> None:
    """Render a manifest as the guide does."""
    start_ray(NUM_CPUS)
    render(manifest, output, Generator, (str(folder), str(output)))


def tuned(manifest: Path, folder: Path, output: Path) -> None:
    """Render a manifest with a block a batch."""
    start_ray(NUM_CPUS)
    blocks = max(1, pq.read_metadata(manifest).num_rows // settings.BATCH_SIZE)
    render(manifest, output, Generator, (str(folder), str(output)), blocks=blocks)


def render(
    manifest: Path,
    output: Path,
    generator: type,
    arguments: tuple[Any, ...],
    *,
    blocks: int | None = None,
    workers: int = WORKERS,
) -> None:
    """Run map_batches over a manifest and write the metadata.

    Args:
        manifest: One Parquet file.
        output: Folder of the metadata.
        generator: Class with `__call__(batch)`.
        arguments: Of its constructor.
        blocks: To repartition into; None leaves what read_parquet made.
        workers: Actors in the pool.
    """
    DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(str(manifest))
    if blocks is not None:
        dataset = dataset.repartition(blocks)
    dataset.map_batches(
        generator,
        fn_constructor_args=arguments,
        batch_size=settings.BATCH_SIZE,
        compute=ActorPoolStrategy(size=workers),
    ).write_parquet(str(output / "metadata"))

"""Ray Data over rows that are sorted by their settings: a block a group, two actors that keep their models.

Ray Data forms batches by count alone, so that the groups are formed before, and each is a block of its own.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from benchmarks.lab import start_ray
from benchmarks.mixed.campaign import SCHEMA
from benchmarks.mixed.grouping import groups

WORKERS = 2
NUM_CPUS = 4
"""Two actors on two cores would leave Ray Data none to read with: it waits for ever, without a word (2.60)."""


class Generator:
    """Loads the pipelines once an actor."""

    def __init__(self, models: str, output: str) -> None:
        from benchmarks.mixed.careful import Pictures

        self._pictures = Pictures(Path(models), Path(output))

    def __call__(self, group: pa.Table) -> pa.Table:
        """Render a group; the rows go on as they came."""
        self._pictures.render(group.to_pylist())
        return group


def main(manifest: Path, models: Path, output: Path) -> None:
    """Render a manifest."""
    start_ray(NUM_CPUS)
    DataContext.get_current().enable_progress_bars = False
    blocks = [pa.Table.from_pylist(group, schema=SCHEMA) for group in groups(manifest)]
    ray.data.from_arrow(blocks).map_batches(
        Generator,
        fn_constructor_args=(str(models), str(output)),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=WORKERS),
    ).write_parquet(str(output / "metadata"))

"""Manifests of the benchmarks: one Parquet file, every prompt another."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write(file: Path, rows: int, seed: int, **columns: list[str]) -> Path:
    """Write `rows` distinct requests and return the file.

    Args:
        file: To be written.
        rows: How many.
        seed: Of the first; they follow on.
        columns: Further ones, a value a row.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"row-{number:06d}" for number in range(rows)]
    prompts = [f"scene number {number} of an old town by the sea" for number in range(rows)]
    pq.write_table(pa.table({"id": ids, "prompt": prompts, "seed": range(seed, seed + rows), **columns}), file)
    return file

"""Which rows a careful user gives to one pipeline call: those of equal settings, at most sixteen.

A pipeline takes one guidance a call, so that a group has one. No torch here: the process that divides needs none.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.settings import BATCH_SIZE

SETTINGS = ("model", "task", "height", "width", "num_inference_steps", "guidance_scale", "strength")


def groups(manifest: Path) -> list[list[dict[str, Any]]]:
    """Return the rows of a manifest in groups that share a call."""

    def settings(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] or 0 for name in SETTINGS)

    rows = sorted(pq.read_table(manifest).to_pylist(), key=settings)
    alike = [list(some) for _, some in groupby(rows, settings)]
    return [some[start : start + BATCH_SIZE] for some in alike for start in range(0, len(some), BATCH_SIZE)]

"""Ours: `sdbatch.run` as it is, its workers noted by the probe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import probe, settings
from benchmarks.engine import run
from sdbatch.types import Receipt, Unit
from sdbatch.worker import Worker

WORKERS = 2


class ProbedWorker(Worker):
    """The worker, with the probe in its process."""

    def start(self) -> dict[str, str]:
        """Start, then wrap the model's classes."""
        facts = super().start()
        probe.install()
        return facts

    def run_unit(self, unit: Unit) -> Receipt:
        """Make a unit and note how many texts were encoded for it."""
        begin_s = time.time()
        receipt = super().run_unit(unit)
        probe.note("text", begin_s, receipt.texts_encoded)
        return receipt


def job(manifest: Path, folder: Path, output: Path, workers: int = WORKERS) -> dict[str, Any]:
    """Return the job that renders a manifest with the benchmarks' model."""
    return {
        "manifest": str(manifest),
        "output": str(output / "campaign"),
        "models": {"t": {"path": str(folder), "batch_size": settings.BATCH_SIZE, "num_gpus": 0}},
        "defaults": {"task": "text-to-image", "model": "t", **settings.arguments()},
        "workers": {"count": workers},
        "determinism": "fast",
    }


def main(manifest: Path, folder: Path, output: Path) -> None:
    """Render a manifest."""
    run(job(manifest, folder, output), "benchmarks.ours:ProbedWorker")

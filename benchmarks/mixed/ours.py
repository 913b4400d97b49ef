"""Ours: the manifest as it is, one job, two workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import settings
from benchmarks.engine import run
from benchmarks.mixed.campaign import CLIPS_MODEL, MODELS

WORKERS = 2


def job(manifest: Path, models: Path, output: Path) -> dict[str, Any]:
    """Return the job that renders a manifest."""
    entry = {"batch_size": settings.BATCH_SIZE, "num_gpus": 0}
    return {
        "manifest": str(manifest),
        "output": str(output / "campaign"),
        "models": {name: {"path": str(models / name), **entry} for name in (*MODELS, CLIPS_MODEL)},
        "sources": {"allow": [str(manifest.parent / "sources")]},
        "workers": {"count": WORKERS},
        "determinism": "fast",
    }


def main(manifest: Path, models: Path, output: Path) -> None:
    """Render a manifest."""
    run(job(manifest, models, output), "sdbatch.worker:Worker")

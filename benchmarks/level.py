"""Many sleeping workers: how a rate grows with their number, and how level a run of pictures and clips ends.

    manifest --> the real engine, one cluster for all --> commits, first units --> workers' time that was slept

A worker's time runs from its first unit to the run's last commit, so that the start of processes on few cores is left
out and the end is not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import simulate
from benchmarks.engine import run
from benchmarks.lab import Lab, start_ray
from benchmarks.sleeping import STARTED, TFLOP_PER_S
from benchmarks.table import Row, paired, row

WORKER = "benchmarks.sleeping:SleepingWorker"
STEP_S = 0.0125
WIDE = 16
_FAMILY = "Stable Diffusion 1.x/2.x"
PAIRS_MAX = 3
MIXED_ROWS = 20_000
"""Of pictures and clips: two minutes on 8 workers, so that the seconds in which their processes start on few cores do
not decide how level the end is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """What a run of sleeping workers came to.

    Attributes:
        rows: Committed.
        cost_s: Seconds their rows truly cost, together.
        worker_s: Seconds from each worker's first unit to the run's last commit, together.
        workers: That had a unit.
    """

    rows: int
    cost_s: float
    worker_s: float
    workers: int

    @property
    def share(self) -> float:
        """Return the share of the workers' time that rows truly cost."""
        return self.cost_s / self.worker_s

    @property
    def rate_per_s(self) -> float:
        """Return rows a second of one worker."""
        return self.rows / self.worker_s


def rows(lab: Lab) -> list[Row]:
    """Measure; a quick lab's figures are of runs too short to judge."""
    _start_cluster(lab)
    seconds = 2.0 if lab.is_quick else 20.0
    number = 1 if lab.is_quick else min(lab.pairs, PAIRS_MAX)
    narrow: list[Slept] = []
    wide: list[Slept] = []
    for pair in range(number):
        for workers, found in ((1, narrow), (WIDE, wide))[:: 1 if pair % 2 else -1]:
            manifest = _manifest(lab, round(seconds * workers / (8 * STEP_S)), steps=8)
            found.append(_slept(lab, f"{workers}-{pair}", workers, manifest))
    mixed = _manifest(lab, 400 if lab.is_quick else MIXED_ROWS, steps=2, clips=0.05)
    level = [_slept(lab, f"tail-{pair}", 8, mixed) for pair in range(number)]
    simulated = simulate.tail(8, lab.seed).utilisation
    return [
        paired(
            "sleeping_16",
            [one.rate_per_s for one in wide],
            [one.rate_per_s for one in narrow],
            [one.rate_per_s / two.rate_per_s for one, two in zip(wide, narrow, strict=True)],
            f"{seconds:.0f} s of {8000 * STEP_S:.0f} ms rows, {WIDE} processes on {os.cpu_count()} cores",
        ),
        row(
            "tail_8",
            ours=min(one.share for one in level),
            note=f"{level[0].rows} rows, the worst of {number}; as many simulated: {simulated:.4f}",
        ),
    ]


def _start_cluster(lab: Lab) -> None:
    """Start the one cluster that every run here joins."""
    os.environ[TFLOP_PER_S] = repr(_step_tflop() / STEP_S)
    os.environ[STARTED] = str(lab.folder / "started")
    (lab.folder / "started").mkdir()
    start_ray(2 * WIDE)


def _step_tflop() -> float:
    """Return what the family's table says of one step."""
    from sdbatch.families import FAMILIES, cost_tflop

    return cost_tflop(FAMILIES[_FAMILY], parameters=0, height=512, width=512, num_frames=1, steps=1, guided=False)


def _manifest(lab: Lab, count: int, *, steps: int, clips: float = 0.0) -> Path:
    """Write pictures, then the clips, each 20 times as dear: 20 times the steps stand for them."""
    file = lab.folder / f"{count}-{steps}-{clips}.parquet"
    num_clips = round(count * clips)
    of_rows = [steps] * (count - num_clips) + [20 * steps] * num_clips
    ids = [f"row-{number:06d}" for number in range(count)]
    models = ["pictures"] * (count - num_clips) + ["clips"] * num_clips
    columns = {"id": ids, "model": models, "num_inference_steps": pa.array(of_rows, pa.int32())}
    pq.write_table(pa.table(columns), file)
    return file


def _slept(lab: Lab, name: str, workers: int, manifest: Path) -> Slept:
    """Run a manifest on some workers."""
    entry: Mapping[str, Any] = {
        "path": "/absent",
        "family": _FAMILY,
        "revision": "1" * 40,
        "num_gpus": 0,
        "defaults": {"height": 512, "width": 512},
    }
    job = {
        "manifest": str(manifest),
        "output": str(lab.folder / f"campaign-{name}"),
        "models": {"pictures": {**entry, "batch_size": 4}, "clips": {**entry, "batch_size": 1}},
        "defaults": {"task": "text-to-image", "prompt": "", "guidance_scale": 1.0},
        "workers": {"count": workers},
    }
    run_id = run(job, WORKER).run_id
    tables = [pq.read_table(file) for file in Path(str(job["output"])).glob("runs/*/commits/*.parquet")]
    ended_s = max(table.column("committed_at")[0].as_py().timestamp() for table in tables)
    begun_s = [float(file.read_text()) for file in (lab.folder / "started").glob(f"{run_id}-*")]
    return Slept(
        rows=sum(table.num_rows for table in tables),
        cost_s=sum(sum(table.column("denoise_s").to_pylist()) for table in tables),
        worker_s=sum(ended_s - one for one in begun_s),
        workers=len(begun_s),
    )

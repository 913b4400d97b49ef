"""Against Ray Data as its guide has it, with N workers that sleep, one Parquet file: how many of them are kept busy.

Sleeping takes no core, so a small machine shows what a cluster would; real models are in `speed`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks import engine, manifest, model, ours, probe
from benchmarks.even import ROW_S, Sleeper
from benchmarks.lab import Lab, load, start_ray
from benchmarks.table import Row, paired
from benchmarks.trial import Steady, last_written_s, steady_of

WORKERS = 4
ROWS = 1024


def rows(lab: Lab) -> list[Row]:
    """Run both in turn; nothing in a quick lab, as there is nothing to count."""
    if lab.is_quick:
        return []
    notes = lab.folder / "notes"
    notes.mkdir()
    os.environ[probe.FOLDER] = str(notes)
    folder = model.make(lab.folder / "model")
    file = manifest.write(lab.folder / "rows.parquet", ROWS, lab.seed)
    start_ray(WORKERS + 2)
    mine: list[Steady] = []
    theirs: list[Steady] = []
    for number in range(lab.pairs):
        theirs.append(_ray_data(file, lab.folder / f"{number}-ray-data", notes))
        mine.append(_sdbatch(file, folder, lab.folder / f"{number}-sdbatch", notes))
        for name, steady in (("Ray Data as documented", theirs[-1]), ("sdbatch", mine[-1])):
            print(f"  {name}: {steady.rate_per_s:.1f} rows/s, {steady.workers} workers; load {load()}", flush=True)
    return [
        paired(
            "ray_data_documented",
            [one.rate_per_s for one in mine],
            [one.rate_per_s for one in theirs],
            [one.rate_per_s / other.rate_per_s / WORKERS for one, other in zip(mine, theirs, strict=True)],
            f"{WORKERS} workers, {ROWS} rows of {1000 * ROW_S:.0f} ms; the ratio is a worker's; "
            f"Ray Data kept {max(one.workers for one in theirs)} of {WORKERS} actors busy",
        )
    ]


def _ray_data(file: Path, output: Path, notes: Path) -> Steady:
    from benchmarks.baselines import ray_data  # which needs pandas (extra `bench`)

    begin_s = time.time()
    output.mkdir()
    ray_data.render(file, output, Sleeper, (), workers=WORKERS)
    made = [note for note in probe.read(notes) if note.begin_s > begin_s]
    return steady_of(made, max(note.end_s for note in made))


def _sdbatch(file: Path, folder: Path, output: Path, notes: Path) -> Steady:
    begin_s = time.time()
    engine.run(ours.job(file, folder, output, workers=WORKERS), "benchmarks.even:EvenWorker")
    made = [note for note in probe.read(notes) if note.begin_s > begin_s]
    return steady_of(made, last_written_s(output))

"""What encoding and slow sources cost a model that takes its time: nothing, if they are overlapped.

one sleeping worker: flat pictures | noise, encoding at 38 % of a row's model time | sources that take 30 ms
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import engine, manifest, model, ours, probe, settings, still
from benchmarks.lab import Lab, load, start_ray
from benchmarks.table import Row, paired
from benchmarks.trial import last_written_s, steady_of

ROWS = 192
BATCH_SIZE = 8
ENCODE_SHARE = 0.38
"""Of a row's time in the model: what a PNG of 1024 px takes of SDXL's, at the record of 2.4 pictures a second."""

ARMS: Mapping[str, str] = {
    "without": "benchmarks.still:StillWorker",
    "encoding": "benchmarks.still:DrawingWorker",
    "sources": "benchmarks.still:FetchingWorker",
}


def rows(lab: Lab) -> list[Row]:
    """Run each arm in turn; nothing in a quick lab, as there is nothing to count."""
    if lab.is_quick:
        return []
    encode_s = _encode_s()
    row_s = encode_s / ENCODE_SHARE
    notes = lab.folder / "notes"
    notes.mkdir()
    os.environ.update({still.ROW_S: str(row_s), probe.FOLDER: str(notes)})
    folder = model.make(lab.folder / "model")
    plain = manifest.write(lab.folder / "plain.parquet", ROWS, lab.seed)
    sources = manifest.write(lab.folder / "sources.parquet", ROWS, lab.seed, images=_sources(lab.folder / "sources"))
    start_ray(2)
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(lab.pairs):
        for arm, worker in ARMS.items():
            output = lab.folder / f"{number}-{arm}"
            job = _job(sources if arm == "sources" else plain, folder, output, arm)
            begin_s = time.time()
            engine.run(job, worker)
            made = [note for note in probe.read(notes) if note.begin_s > begin_s]
            rates[arm].append(steady_of(made, last_written_s(output)).rate_per_s)
            print(f"  {arm}: {rates[arm][-1]:.2f} rows/s of {1 / row_s:.2f}; load {load()}", flush=True)
    said = f"one worker, {1000 * row_s:.0f} ms a row in the model, "
    return [
        _row("encoding", rates["encoding"], rates["without"], f"{said}{1000 * encode_s:.0f} ms in the encoder"),
        _row("slow_sources", rates["sources"], rates["without"], f"{said}{1000 * still.SOURCE_S:.0f} ms a source"),
    ]


def _row(name: str, with_it: list[float], without: list[float], note: str) -> Row:
    return paired(name, with_it, without, [one / other for one, other in zip(with_it, without, strict=True)], note)


def _job(file: Path, folder: Path, output: Path, arm: str) -> dict[str, Any]:
    """Return ours' job with one worker; of image-to-image where there are sources."""
    job = ours.job(file, folder, output, workers=1)
    job["models"]["t"]["batch_size"] = BATCH_SIZE
    job["defaults"].update(height=still.SIZE_PX, width=still.SIZE_PX)
    if arm == "sources":
        job["defaults"].update(task="image-to-image", height=settings.SIZE_PX, width=settings.SIZE_PX)
        job["sources"] = {"allow": [str(file.parent / "sources")]}
    return job


def _sources(folder: Path) -> list[str]:
    """Write a source for every row and return their paths."""
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(ROWS)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((settings.SIZE_PX, settings.SIZE_PX, 3), number, np.uint8)).save(path)
    return [str(path) for path in paths]


def _encode_s() -> float:
    """Return the CPU seconds that the worker's encoder takes for a picture of noise."""
    from sdbatch.encode.asset import encode_asset
    from sdbatch.encode.image import thumbnail
    from sdbatch.job import Encode

    picture_HWC = (still.picture(is_noise=True).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    taken = []
    for _ in range(9):
        begin_s = time.thread_time()
        encode_asset(picture_HWC[None], Encode(), fps=None, sound=None, request_key="0" * 64, n=0, recipe="{}")
        thumbnail(picture_HWC)
        taken.append(time.thread_time() - begin_s)
    return median(taken)

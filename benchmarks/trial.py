"""One arm, once: started as a process, watched from outside, its outputs read.

arm + manifest --> process (notes, files, CPU curve) --> Trial: rate, CPU a row, share of time in the model
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks import probe
from benchmarks.meter import Meter

ARMS: Mapping[str, str] = {
    "sdbatch": "benchmarks.ours:main",
    "plain loop": "benchmarks.baselines.plain_loop:main",
    "batched loop": "benchmarks.baselines.batched_loop:main",
    "accelerate": "benchmarks.baselines.accelerate_split:main",
    "Ray Data as documented": "benchmarks.baselines.ray_data:documented",
    "Ray Data tuned by hand": "benchmarks.baselines.ray_data:tuned",
}
ARM_MAX_S = 300.0
TOLERANCE = 1
"""Steps of 8 bits that a value may be off: the batch a row is in moves the last bits of its floats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one arm did once.

    Attributes:
        arm: Its name.
        rate_per_s: Rows a second in the steady window: from the first moment at which every worker has made a batch
            to the last file.
        cpu_ms: CPU milliseconds a row in that window, of all its processes, Ray's own included; NaN when no row fell
            into it, as may happen with three batches.
        share: Wall in the model over wall, per worker, from the last worker's first call to the last file.
        wall_s: From the command to its end, imports and start included.
        cpu_s: CPU seconds in that time.
        notes: Of its processes.
        files: Picture by row id.
    """

    arm: str
    rate_per_s: float
    cpu_ms: float
    share: float
    wall_s: float
    cpu_s: float
    notes: list[probe.Note]
    files: dict[str, Path]


def run_arm(arm: str, manifest: Path, model: Path, output: Path) -> Trial:
    """Render a manifest with one arm in a process of its own.

    When that fails it is tried once more, and said so: Ray gives up a start that takes longer than half a minute, which
    on a loaded machine happens to every arm with it.

    Raises:
        RuntimeError: When it failed twice, took too long, or left pictures out.
    """
    try:
        return _run_once(arm, manifest, model, output)
    except RuntimeError as error:
        print(f"  {arm} is tried once more: {error}", flush=True)
        return _run_once(arm, manifest, model, output.with_name(f"{output.name}-again"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A process that ended well.

    Attributes:
        meter: CPU seconds over time, of all its processes.
        wall_s: From the command to its end.
    """

    meter: Meter
    wall_s: float


def watch(main: str, arguments: Sequence[Path], output: Path, limit_s: float = ARM_MAX_S) -> Watched:
    """Call a function in a process of its own, and watch it from outside.

    Args:
        main: `module:function`.
        arguments: What it is called with.
        output: An existing folder; what the process says goes to its file `log`.
        limit_s: Seconds after which it is ended.

    Raises:
        RuntimeError: When it failed or took too long.
    """
    module, _, function = main.partition(":")
    script = (
        f"import sys; from pathlib import Path; from {module} import {function} as main; main(*map(Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    begin_s = time.time()
    with (output / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, probe.FOLDER: str(output / "notes")}
        )
        with Meter(process.pid) as meter:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    if code != 0:
        raise RuntimeError(f"{main} ended with {code}: {(output / 'log').read_text()[-2000:]}")
    return Watched(meter=meter, wall_s=time.time() - begin_s)


def _run_once(arm: str, manifest: Path, model: Path, output: Path) -> Trial:
    (output / "notes").mkdir(parents=True)
    watched = watch(ARMS[arm], (manifest, model, output), output)
    trial = _read(arm, output, watched.meter, watched.wall_s)
    if len(trial.files) != (expected := pq.read_metadata(manifest).num_rows):
        raise RuntimeError(f"{arm} made {len(trial.files)} pictures of {expected}")
    return trial


def _read(arm: str, output: Path, meter: Meter, wall_s: float) -> Trial:
    notes = probe.read(output / "notes")
    files = _pictures(output)
    steady = steady_of(notes, last_written_s(output))
    cpu_s = meter.cpu_s(steady.end_s) - meter.cpu_s(steady.begin_s)
    return Trial(
        arm=arm,
        rate_per_s=steady.rate_per_s,
        cpu_ms=1000 * cpu_s / steady.rows if steady.rows else math.nan,
        share=steady.share,
        wall_s=wall_s,
        cpu_s=meter.total_s,
        notes=notes,
        files=files,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """The part of a run in which every worker works, to its end.

    Attributes:
        begin_s: Wall clock: every worker has made its first batch.
        end_s: Wall clock: the last file is there.
        rows: Made in between.
        share: Wall in the model over wall, per worker, from the last worker's first call on.
        workers: Processes that made anything.
    """

    begin_s: float
    end_s: float
    rows: int
    share: float
    workers: int

    @property
    def rate_per_s(self) -> float:
        """Return rows a second."""
        return self.rows / (self.end_s - self.begin_s)


def steady_of(notes: Sequence[probe.Note], end_s: float) -> Steady:
    """Return the steady part of a run from its notes and the time of its last file."""
    calls = [note for note in notes if note.kind == "call"]
    firsts = {note.process: note for note in reversed(calls) if note.rows}
    all_began_s = max(note.begin_s for note in firsts.values())
    all_made_s = max(note.end_s for note in firsts.values())
    in_model_s = sum(max(0.0, note.end_s - max(note.begin_s, all_began_s)) for note in calls)
    return Steady(
        begin_s=all_made_s,
        end_s=end_s,
        rows=sum(note.rows for note in calls if note.end_s > all_made_s),
        share=in_model_s / (len(firsts) * (end_s - all_began_s)),
        workers=len(firsts),
    )


def last_written_s(output: Path) -> float:
    """Return when the last picture or commit was written."""
    written = [*_pictures(output).values(), *output.glob("campaign/runs/*/commits/*")]
    return max(file.stat().st_mtime for file in written)


def _pictures(output: Path) -> dict[str, Path]:
    """Return every picture by its row's id; a campaign's names end in key and number."""
    ours = {file.stem.rsplit("-", 2)[0]: file for file in output.glob("campaign/assets/*.png")}
    return ours or {file.stem: file for file in output.glob("*.png")}


def compare(trials: Sequence[Trial]) -> str:
    """Compare every picture that two arms made with the first arm's; return what was found, in words.

    Raises:
        ValueError: When one is further off than the tolerance.
    """
    first, *others = trials
    reference = {name: _pixels(file) for name, file in first.files.items()}
    pairs = [(trial, name) for trial in others for name in sorted(reference.keys() & trial.files.keys())]
    equal = 0
    for trial, name in pairs:
        off = int(np.abs(reference[name].astype(np.int16) - _pixels(trial.files[name])).max())
        if off > TOLERANCE:
            raise ValueError(f"{trial.arm}: {name} is off by {off} of 255 from that of {first.arm}")
        equal += off == 0
    return f"{equal} of {len(pairs)} pictures equal to those of {first.arm}, the others within {TOLERANCE} of 255"


def _pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))

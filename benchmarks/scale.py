"""A million rows: planned, worked off by workers that make nothing, and taken up again when 90 % are done.

    manifest --> a process each: plan | no-op run | a tenth removed, snapshot, run again --> JSON on standard output

A run is left when its last receipt is in, or, taken up again, its first: metadata and gallery are not written here.
The whole is done as often as arms run in pairs elsewhere, in turns: a machine's own speed moves by a third in an hour.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import peak_mib
from benchmarks.lab import Lab
from benchmarks.sleeping import STARTED
from benchmarks.table import Row, row
from sdbatch.cli import prepare_command

ROWS = 1_000_000
QUICK_ROWS = 20_000
SHARDS = 8
WORKERS = 2
BATCH_SIZE = 32
"""32 batches are a unit, so units are of 1,024 rows."""

CHILD_MAX_S = 900.0
DONE_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the processes of one turn said.

    Attributes:
        plan: Of the plan.
        noop: Of the run that works all off.
        resume: Of the run that goes on.
        done: Rows that were done when it did.
    """

    plan: dict[str, Any]
    noop: dict[str, Any]
    resume: dict[str, Any]
    done: int


def rows(lab: Lab) -> list[Row]:
    """Measure, each in a process of its own."""
    count = QUICK_ROWS if lab.is_quick else ROWS
    manifest = _manifest(lab.folder / "manifest", count)
    turns = [_turn(lab.folder / str(number), manifest, count) for number in range(1 if lab.is_quick else lab.pairs)]
    noop_s = median(turn.noop["worked_s"] for turn in turns)
    calls = max(turn.noop["calls"] for turn in turns)
    driver_us = median(1e6 * turn.noop["cpu_s"] / count for turn in turns)
    return [
        _row("plan_cpu", [turn.plan["cpu_s"] for turn in turns], f"{count:,} rows, imports included"),
        _row("plan_memory", [turn.plan["peak_mib"] for turn in turns], f"{count:,} rows"),
        _row(
            "noop_wall",
            [1e6 * turn.noop["worked_s"] / count for turn in turns],
            f"{noop_s:.0f} s from the first worker's being ready to the last receipt, commits included; "
            f"the driver's CPU is {driver_us:.1f} us a row with the plan, "
            f"its peak memory {max(turn.noop['peak_mib'] for turn in turns):.0f} MiB",
        ),
        row(
            "noop_messages",
            ours=calls / count,
            note=f"{calls} calls of workers (starts, {turns[0].noop['units']} units, pings), each answered once, "
            f"are 1/{count / calls:.0f}; besides, a worker leaves a note of every pipeline call with Ray",
        ),
        _row(
            "resume",
            [turn.resume["first_unit_s"] for turn in turns],
            f"{turns[0].done:,} of {count:,} rows done; from the command, start of Ray and workers included; "
            f"{median(turn.resume['cpu_s'] for turn in turns):.1f} CPU s",
        ),
        _row("resume_memory", [turn.resume["peak_mib"] for turn in turns], f"{count:,} rows; of the driver"),
    ]


def _row(name: str, figures: Sequence[float], note: str) -> Row:
    return row(
        name,
        ours=median(figures),
        spread=(min(figures), max(figures)) if len(figures) > 1 else None,
        note=f"{note}; median of {len(figures)}" if len(figures) > 1 else note,
    )


def _turn(folder: Path, manifest: Path, count: int) -> Measured:
    """Measure everything once."""
    folder.mkdir()
    output = folder / "campaign"
    planned = _child("plan", manifest, output)
    noop = _child("noop", manifest, output)
    _check(output, count)
    removed = _remove_some(output)
    _child("snapshot", manifest, output)
    resumed = _child("resume", manifest, output)
    shutil.rmtree(folder)
    return Measured(plan=planned, noop=noop, resume=resumed, done=count - removed)


def _manifest(folder: Path, count: int) -> Path:
    folder.mkdir()
    for shard in range(SHARDS):
        numbers = range(count * shard // SHARDS, count * (shard + 1) // SHARDS)
        columns = {
            "id": [f"row-{number:07d}" for number in numbers],
            "prompt": [f"scene number {number} of an old town by the sea, in the evening light" for number in numbers],
        }
        pq.write_table(pa.table(columns), folder / f"part-{shard}.parquet")
    return folder


def _child(what: str, manifest: Path, output: Path) -> dict[str, Any]:
    """Run one of `MEASURES` in a process of its own and return what it printed."""
    started = output.parent / f"started-{what}"
    started.mkdir()
    begin_s = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", what, str(manifest), str(output)],
        env={**os.environ, STARTED: str(started)},
        stdout=subprocess.PIPE,
        timeout=CHILD_MAX_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {what}: {found}", flush=True)
    firsts = [float(file.read_text()) for file in started.iterdir()]
    return {**found, "first_unit_s": min(firsts, default=begin_s) - begin_s}


def _check(output: Path, count: int) -> None:
    """Raise ValueError unless every row is committed once."""
    files = output.glob("runs/*/commits/*.parquet")
    ids = [row_id for file in files for row_id in pq.read_table(file, columns=["id"]).column("id").to_pylist()]
    if len(ids) != count or len(set(ids)) != count:
        raise ValueError(f"{len(ids)} rows of {count} were committed, {len(set(ids))} of them once")


def _remove_some(output: Path) -> int:
    """Remove every tenth commit, as if these had never been made, also by what the run says; return their rows."""
    commits = sorted(output.glob("runs/*/commits/*.parquet"))[:: round(1 / (1 - DONE_SHARE))]
    removed: int = sum(pq.read_metadata(file).num_rows for file in commits)
    for file in commits:
        file.unlink()
    (said,) = output.glob("runs/*/status.json")
    status = json.loads(said.read_text())
    standing = status["campaign"]
    status["campaign"] = {**standing, "made": standing["made"] - removed, "open": standing["open"] + removed}
    said.write_text(json.dumps(status))
    return removed


# --- in a process of its own ----------------------------------------------------------------------------------------


class Watch:
    """Stands where a person's progress bar does, and ends the run once enough was seen, as a second Ctrl-C does.

    Args:
        outputs: How many have to end.
    """

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self._ready_s = 0.0
        self.worked_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, snapshot: Any) -> None:
        """Note when the first worker was ready; leave when enough outputs have ended."""
        if snapshot.workers and not self._ready_s:
            self._ready_s = time.monotonic()
        if snapshot.outputs_ended >= self._outputs and not self.worked_s:
            self.worked_s = time.monotonic() - self._ready_s
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)


def plan(manifest: Path, output: Path) -> dict[str, Any]:
    """Plan."""
    from sdbatch.api import plan

    report = plan(_job(manifest, output))
    return {"rows": report.rows}


def noop(manifest: Path, output: Path) -> dict[str, Any]:
    """Work all off; count the calls that leave the driver."""
    from ray.actor import ActorMethod

    calls: list[str] = []
    remote = ActorMethod._remote  # noqa: SLF001 -- every call of an actor goes through it

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(self._method_name)
        return remote(self, *arguments, **options)

    ActorMethod._remote = counted  # noqa: SLF001
    count = sum(pq.read_metadata(file).num_rows for file in manifest.iterdir())
    return {**_worked(manifest, output, count), "calls": len(calls), "units": calls.count("run_unit")}


def snapshot(_manifest: Path, output: Path) -> dict[str, Any]:
    """Write what a run writes at its end, which was left before; what was removed is not in it."""
    from sdbatch.campaign.campaign import Campaign
    from sdbatch.campaign.snapshot import write_snapshot
    from sdbatch.storage import open_store

    campaign = Campaign(open_store(str(output), {}))
    history = campaign.history()
    write_snapshot(campaign.store, campaign.newest_run(), history)
    return {"rows": len(history)}


def resume(manifest: Path, output: Path) -> dict[str, Any]:
    """Go on until the first receipt."""
    return _worked(manifest, output, 1)


def _worked(manifest: Path, output: Path, outputs: int) -> dict[str, Any]:
    from sdbatch.api import load_job
    from sdbatch.driver.picking import Selection
    from sdbatch.driver.run import run_job

    watch = Watch(outputs)
    with suppress(KeyboardInterrupt):
        run_job(
            load_job(_job(manifest, output)),
            selection=Selection(),
            in_process=False,
            progress=watch,
            worker="benchmarks.sleeping:NoopWorker",
        )
    return {"worked_s": watch.worked_s}


def _job(manifest: Path, output: Path) -> dict[str, Any]:
    model = {"path": "builtin:tiny-random", "batch_size": BATCH_SIZE, "num_gpus": 0}
    return {
        "manifest": str(manifest),
        "output": str(output),
        "models": {"null": model},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2},
        "workers": {"count": WORKERS},
    }


MEASURES = {"plan": plan, "noop": noop, "snapshot": snapshot, "resume": resume}

if __name__ == "__main__":
    prepare_command()  # as for a person who types the command
    result = MEASURES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    result |= {"cpu_s": time.process_time(), "peak_mib": peak_mib()}
    print(json.dumps(result))

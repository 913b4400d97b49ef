"""A million rows: planned, worked off by workers that make nothing, and taken up again when 90 % are done.

    manifest --> a process each: plan | no-op run | a tenth removed, snapshot, run again --> JSON on standard output

A run is left when its last receipt is in, or, taken up again, its first: metadata and gallery are not timed here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
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


def rows(lab: Lab) -> list[Row]:
    """Measure, each in a process of its own."""
    count = QUICK_ROWS if lab.is_quick else ROWS
    manifest = _manifest(lab.folder / "manifest", count)
    output = lab.folder / "campaign"
    planned = _child("plan", manifest, output)
    noop = _child("noop", manifest, output)
    _check(output, count)
    removed = _remove_some(output)
    _child("snapshot", manifest, output)
    resumed = _child("resume", manifest, output)
    wall_s = noop["worked_s"]
    return [
        row("plan_cpu", ours=planned["cpu_s"], note=f"{count:,} rows, imports included"),
        row("plan_memory", ours=planned["peak_mib"], note=f"{count:,} rows"),
        row(
            "noop_wall",
            ours=1e6 * wall_s / count,
            note=f"{wall_s:.0f} s from the first worker's being ready to the last receipt, commits included; "
            f"the driver's CPU is {1e6 * noop['cpu_s'] / count:.1f} us a row with the plan, "
            f"its peak memory {noop['peak_mib']:.0f} MiB",
        ),
        row(
            "noop_messages",
            ours=noop["calls"] / count,
            note=f"{noop['calls']} calls of workers (starts, {noop['units']} units, pings), each answered once, "
            f"are 1/{count / noop['calls']:.0f}; besides, a worker leaves a note of every pipeline call with Ray",
        ),
        row(
            "resume",
            ours=resumed["first_unit_s"],
            note=f"{count - removed:,} of {count:,} rows done; from the command, start of Ray and workers included; "
            f"{resumed['cpu_s']:.1f} CPU s",
        ),
        row("resume_memory", ours=resumed["peak_mib"], note=f"{count:,} rows; of the driver"),
    ]


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


class _Enough(Exception):
    """What was to be measured has been seen."""


class Watch:
    """Stands where a person's progress bar does, and leaves once enough was seen.

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
            raise _Enough


def plan(manifest: Path, output: Path) -> dict[str, Any]:
    """Plan."""
    from sdbatch.api import plan

    report = plan(_job(manifest, output))
    return {"rows": report.rows}


def noop(manifest: Path, output: Path) -> dict[str, Any]:
    """Work all off; count the calls that leave the driver."""
    count = sum(pq.read_metadata(file).num_rows for file in manifest.iterdir())
    return _worked(manifest, output, count)


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
    from ray.actor import ActorMethod

    from sdbatch.api import load_job
    from sdbatch.driver import Selection, run_job

    calls: list[str] = []
    remote = ActorMethod._remote  # noqa: SLF001 -- every call of an actor goes through it

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(self._method_name)
        return remote(self, *arguments, **options)

    ActorMethod._remote = counted  # noqa: SLF001
    watch = Watch(outputs)
    with suppress(_Enough):
        run_job(
            load_job(_job(manifest, output)),
            selection=Selection(),
            in_process=False,
            progress=watch,
            worker="benchmarks.sleeping:NoopWorker",
        )
    return {"worked_s": watch.worked_s, "calls": len(calls), "units": calls.count("run_unit")}


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

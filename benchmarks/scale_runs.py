"""A year of nightly runs of 1,000 rows each in one campaign: what `status` and a resume ask of the store.

    365 runs (manifest, commits, index, snapshot when due, records) --> calls of status | history | plan, counted

Runs are left as driver and workers leave them, by the same functions; the last one is the job's own manifest, of which
nine tenths are made, so that the plan is that of a resume.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import answer, measured
from benchmarks.counted import CountedStore, calls_of_folder
from benchmarks.lab import Lab
from benchmarks.table import Row, row

RUNS = 365
ROWS = 1000
QUICK_RUNS, QUICK_ROWS = 30, 20
UNITS = 4
"""Commits of a night."""


def rows(lab: Lab) -> list[Row]:
    """Measure."""
    runs, count = (QUICK_RUNS, QUICK_ROWS) if lab.is_quick else (RUNS, ROWS)
    output = lab.folder / "campaign"
    made = measured(__name__, "make", output, lab.folder / "manifest", runs, count)
    status = measured(__name__, "status", output)
    resume = measured(__name__, "resume", output)
    plan = measured(__name__, "plan", output, lab.folder / "manifest")
    if resume["outcomes"] != made["outcomes"] or plan["reused"] != made["reused"]:
        raise ValueError(f"{made} were made; the history knows {resume}, the plan {plan}")
    told = f"{runs} runs of {count:,} rows, {made['snapshots']} snapshots written"
    return [
        row("runs_status", ours=sum(status["calls"].values()), note=f"{told}; {_told(status)}"),
        row(
            "runs_resume",
            ours=resume["calls"]["read"],
            note=f"{told}; {_told(resume)}, {resume['cpu_s']} CPU s, {resume['peak_mib']} MiB; the whole plan: "
            f"{_told(plan)}, {plan['cpu_s']} CPU s",
        ),
    ]


def _told(found: dict[str, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(found["calls"].items()))


# --- in a process of its own ----------------------------------------------------------------------------------------


def make(output: str, manifest: str, runs: str, count: str) -> dict[str, Any]:
    """Leave so many nights, and the last one nine tenths made."""
    from sdbatch.campaign import layout
    from sdbatch.campaign.history import read_history
    from sdbatch.campaign.schema import to_parquet
    from sdbatch.campaign.snapshot import is_due, write_snapshot
    from sdbatch.driver.rows.scan import ResolvedManifest
    from sdbatch.job import parse_job
    from sdbatch.storage import local, open_campaign

    local.os.fsync = lambda _: None  # type: ignore[attr-defined]  # what a disk takes to be sure is not measured here
    store = open_campaign(output, {})
    num_snapshots = num_outcomes = 0
    for epoch in range(1, int(runs)):
        ids = [f"night-{epoch:03d}-{number:04d}" for number in range(int(count))]
        keys = [f"{epoch:060x}{number:04x}" for number in range(int(count))]
        run = _begin(store, epoch)
        table = pa.table({"id": ids, "request_key": keys, "num_outputs": pa.array([1] * len(ids), pa.int32())})
        store.put_new(layout.requests(run, 0), to_parquet(table))
        _commit(store, run, ids, keys)
        history = read_history(store, follower=run)
        if is_due(history):
            write_snapshot(store, run, history)
            num_snapshots += 1
        _end(store, run)
        num_outcomes += len(ids)
    Path(manifest).mkdir()
    ids = [f"night-{runs}-{number:04d}" for number in range(int(count))]
    pq.write_table(pa.table({"id": ids, "prompt": [f"view {one}" for one in ids]}), f"{manifest}/rows.parquet")
    run = _begin(store, int(runs))
    resolved = ResolvedManifest(parse_job(_job(manifest, output)))
    resolved.publish(store, run)
    (part,) = resolved.parts(["id", "request_key"])
    made = part.slice(0, int(count) * 9 // 10).to_pydict()
    _commit(store, run, made["id"], made["request_key"])
    resolved.close()  # and its driver dies here
    reused = len(made["id"])
    return {"outcomes": num_outcomes + reused, "reused": reused, "snapshots": num_snapshots}


def _begin(store: Any, epoch: int) -> str:
    from sdbatch.campaign import layout

    run = layout.run_id(epoch, "20260101T000000Z")
    store.put_new(layout.lease(epoch), json.dumps({"epoch": epoch, "host": "elsewhere", "pid": 1}).encode())
    store.put_new(layout.beat(epoch), json.dumps({"state": "released"}).encode())
    status = {"run_id": run, "state": "done", "updated_at": "2026-01-01T00:00:00+00:00", "rows": 1}
    counts = {"rows_ok": 1, "rows_failed": 0, "rows_reused": 0}
    values = {**status, "rate_per_s": None, "eta_s": None, "counts": counts}
    store.put(layout.status_json(run), json.dumps(values).encode())
    return run


def _commit(store: Any, run: str, ids: list[str], keys: list[str]) -> None:
    """Commit requests in some units, with the index that a run's end writes."""
    from sdbatch.campaign.index import RunIndex
    from sdbatch.campaign.write import put_commit
    from sdbatch.types import Request, Unit

    index = RunIndex(store, run)
    common = {"recipe": "{}", "outputs": (0,), "sources": (), "model": "m", "batch_key": "b", "cost_tflop": 1.0}
    for number in range(UNITS):
        requests = tuple(
            Request(id=one, request_key=key, **common)  # type: ignore[arg-type]
            for one, key in zip(ids[number::UNITS], keys[number::UNITS], strict=True)
        )
        unit = Unit(id=f"{number:06d}", model="m", requests=requests, batch_size=32, cost_tflop=1.0)
        common_columns = {"n": 0, "status": "ok", "adopted": False}
        put_commit(
            store, run, unit.id, [{"id": r.id, "request_key": r.request_key, **common_columns} for r in requests]
        )
        index.add(unit, ())
    index.write_rest()


def _end(store: Any, run: str) -> None:
    from sdbatch.campaign import layout

    store.put_new(layout.run_json(run), json.dumps({"state": "done", "rate_tflop_per_s": {"m": 1.0}}).encode())


def _job(manifest: str, output: str) -> dict[str, Any]:
    return {
        "manifest": manifest,
        "output": output,
        "models": {"null": {"path": "builtin:tiny-random", "num_gpus": 0}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2},
    }


def status(output: str) -> dict[str, Any]:
    """Ask for the status."""
    from sdbatch.campaign.campaign import Campaign
    from sdbatch.storage import open_campaign

    store = CountedStore(open_campaign(output, {}))
    return {"state": Campaign(store).status()["state"], "calls": store.calls}


def resume(output: str) -> dict[str, Any]:
    """Read what is done, as a run does that follows."""
    from sdbatch.campaign.history import read_history
    from sdbatch.storage import open_campaign

    store = CountedStore(open_campaign(output, {}))
    return {"outcomes": len(read_history(store)), "calls": store.calls}


def plan(output: str, manifest: str) -> dict[str, Any]:
    """Plan the last night again."""
    from sdbatch.api import plan

    calls: Counter[str] = Counter()
    with calls_of_folder(output, calls):
        report = plan(_job(manifest, output))
    return {"reused": report.rows["reused"], "calls": calls}


MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {"make": make, "status": status, "resume": resume, "plan": plan}

if __name__ == "__main__":
    from sdbatch.cli import prepare_command

    prepare_command()
    answer(MEASURES)

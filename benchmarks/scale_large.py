"""Ten million rows: planned, and taken up again when 90 % are done, up to the first request that a worker would get.

    manifest --> a process each: plan | resolve, and leave a snapshot of nine tenths | resume --> CPU and peak of memory

Ray is left out: its start does not depend on the rows. A snapshot is what a resume reads of a campaign, so no commits
are written; `benchmarks.scale` measures the same path with them, at a million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.child import answer, measured
from benchmarks.lab import Lab
from benchmarks.table import Row, row

ROWS = 10_000_000
QUICK_ROWS = 20_000
SHARD_ROWS = 1_000_000
UNIT_ROWS = 1024
DONE_TENTHS = 9
RUN = "r000001-20260101T000000Z"


def rows(lab: Lab) -> list[Row]:
    """Measure."""
    count = QUICK_ROWS if lab.is_quick else ROWS
    manifest, output = lab.folder / "manifest", lab.folder / "campaign"
    write_manifest(manifest, count)
    planned = measured(__name__, "plan", manifest, lab.folder / "empty")
    made = measured(__name__, "make", manifest, output)
    resumed = measured(__name__, "resume", manifest, output)
    if resumed["pending"] != count - made["outcomes"] or planned["rows"]["new"] != count:
        raise ValueError(f"{made} were made of {count}; planned: {planned}, resumed: {resumed}")
    return large_rows(count, planned, resumed)


def large_rows(count: int, planned: dict[str, Any], resumed: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    return [
        row("plan_cpu_10m", ours=_cpu_s(planned), note=f"{count:,} rows, imports included"),
        row("plan_memory_10m", ours=planned["peak_mib"], note=f"{count:,} rows"),
        row(
            "resume_10m",
            ours=_cpu_s(resumed),
            note=f"{count - resumed['pending']:,} of {count:,} rows done; manifest resolved and written down, history "
            "read, everything counted, first request; without Ray's start",
        ),
        row("resume_memory_10m", ours=resumed["peak_mib"], note=f"{count:,} rows"),
    ]


def _cpu_s(found: dict[str, Any]) -> float:
    return float(found["cpu_s"] + found["ready_cpu_s"])


def write_manifest(folder: Path, count: int) -> None:
    """Write a manifest in shards of a million rows, column by column."""
    folder.mkdir()
    for shard, start in enumerate(range(0, count, SHARD_ROWS)):
        numbers = pa.array(np.arange(start, min(start + SHARD_ROWS, count))).cast(pa.string())
        padded = pc.utf8_lpad(numbers, 8, "0")
        prompts = pc.binary_join_element_wise(
            "scene number", numbers, "of an old town by the sea, in the evening light", " "
        )
        table = pa.table({"id": pc.binary_join_element_wise("row", padded, "-"), "prompt": prompts})
        pq.write_table(table, folder / f"part-{shard:03d}.parquet")


# --- in a process of its own ----------------------------------------------------------------------------------------


def _job(manifest: str, output: str) -> dict[str, Any]:
    return {
        "manifest": manifest,
        "output": output,
        "models": {"null": {"path": "builtin:tiny-random", "num_gpus": 0, "batch_size": 32}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2},
    }


def plan(manifest: str, output: str) -> dict[str, Any]:
    """Plan."""
    from sdbatch.api import plan

    return {"rows": plan(_job(manifest, output)).rows}


def make(manifest: str, output: str) -> dict[str, Any]:
    """Leave a run of which nine units of ten are done, as its snapshot tells it."""
    from sdbatch.campaign import layout
    from sdbatch.campaign.schema import INDEX, marks
    from sdbatch.driver.rows.scan import ResolvedManifest
    from sdbatch.job import parse_job
    from sdbatch.storage import open_campaign
    from sdbatch.storage.footers import with_footer_sum

    store = open_campaign(output, {})
    resolved = ResolvedManifest(parse_job(_job(manifest, output)))
    resolved.publish(store, RUN)
    sink = pa.BufferOutputStream()
    alike = [name for name in INDEX.names if name not in {"id", "request_key"}]
    schema, num_outcomes = INDEX.with_metadata(marks(run_id=RUN)), 0
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=alike, write_statistics=False) as writer:
        for done in _done(resolved.parts(["id", "request_key"])):
            writer.write_table(done)
            num_outcomes += done.num_rows
    store.put_new(layout.snapshot(RUN), with_footer_sum(sink.getvalue()))
    store.put_new(layout.run_json(RUN), b'{"state": "done"}')
    resolved.close()
    return {"outcomes": num_outcomes}


def _done(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the outcomes of nine units of ten, in the columns of a snapshot."""
    from sdbatch.campaign import layout
    from sdbatch.campaign.schema import INDEX

    first = 0
    for part in parts:
        units = (np.arange(part.num_rows) + first) // UNIT_ROWS
        first += part.num_rows
        made = part.append_column("unit", pa.array(units)).filter(pa.array(units % 10 < DONE_TENTHS))
        paths = [layout.commit(RUN, f"{unit:06d}") for unit in made.column("unit").to_pylist()]
        columns = {
            "id": made.column("id"),
            "request_key": made.column("request_key"),
            "n": pa.repeat(pa.scalar(0, pa.int32()), made.num_rows),
            "status": pa.repeat(pa.scalar("ok"), made.num_rows),
            "commit": pa.array(paths, pa.string()),
        }
        nulls = {field.name: pa.nulls(made.num_rows, field.type) for field in INDEX if field.name not in columns}
        yield pa.table({**columns, **nulls}).select(INDEX.names).cast(INDEX)


def resume(manifest: str, output: str) -> dict[str, Any]:
    """Go on as a run does, up to the first request."""
    from sdbatch.campaign import layout
    from sdbatch.campaign.campaign import Campaign
    from sdbatch.driver.one_run.select import classify, requests_of
    from sdbatch.driver.one_run.tally import RunTally
    from sdbatch.driver.picking import Selection
    from sdbatch.driver.rows.scan import COUNTED, ResolvedManifest
    from sdbatch.driver.rows.shared_keys import Sharing
    from sdbatch.job import parse_job
    from sdbatch.storage import open_campaign

    store, run = open_campaign(output, {}), layout.run_id(2, "20260102T000000Z")
    resolved, selection, tally = ResolvedManifest(parse_job(_job(manifest, output))), Selection(), RunTally()
    done = Campaign(store).done(follower=run)
    sharing = Sharing(resolved.shared_keys(), done.origins)
    tally.count_pending(classify(resolved.parts(COUNTED), done, selection), sharing)
    resolved.publish(store, run)
    first = next(requests_of(classify(resolved.parts(), done, selection), sharing))
    resolved.close()
    return {"pending": tally.outputs_pending, "first": first.id}


MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {"plan": plan, "make": make, "resume": resume}

if __name__ == "__main__":
    from sdbatch.cli import prepare_command

    prepare_command()
    answer(MEASURES)

"""A hundred thousand real pictures of 64 px in one campaign: what metadata, gallery and `verify` take.

    pictures, commits, index --> a process each: metadata and gallery | hashing alone | verify

The pictures are encoded, named, put and committed by the rooms that do it in a run; only the model is left out.
`SDBATCH_BENCH_S3=1` measures the same in a bucket of a SeaweedFS that this starts, with the requests counted.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import answer, measured
from benchmarks.counted import CountedStore, requests_of_buckets
from benchmarks.lab import Lab
from benchmarks.table import Row, paired, row

ASSETS = 100_000
BUCKET_ASSETS = 10_000
QUICK_ASSETS = 300
UNIT_ROWS = 1024
PIXELS = 64
PAIRS = 3
RUN = "r000001-20260101T000000Z"


def rows(lab: Lab) -> list[Row]:
    """Measure on this machine's disk, and in a bucket where that is wished."""
    count = QUICK_ASSETS if lab.is_quick else ASSETS
    found = _rows(str(lab.folder / "campaign"), lab.folder, count, "disk")
    if os.environ.get("SDBATCH_BENCH_S3"):
        with _bucket(lab.folder) as url:
            found += _rows(url, lab.folder, min(count, BUCKET_ASSETS), "bucket")
    return found


def _rows(output: str, folder: Path, count: int, kind: str) -> list[Row]:
    made = measured(__name__, "make", output, folder / f"manifest-{kind}", count)
    written = measured(__name__, "metadata", output)
    pairs = [
        (measured(__name__, "hashing", output), measured(__name__, "verify", output))
        for _ in range(1 if count <= QUICK_ASSETS else PAIRS)
    ]
    if any(verified["findings"] or verified["hashed"] != count for _, verified in pairs):
        raise ValueError(f"verify did not hash {count} assets, or found something: {pairs}")
    alone, verified = pairs[0]
    return [
        row(
            f"assets_gallery_{kind}",
            ours=written["cpu_s"] * ASSETS / count,
            note=f"{count:,} assets of {made['bytes'] / count:.0f} bytes, CPU scaled to 100,000; peak memory "
            f"{written['peak_mib']} MiB; {_told(written)}",
        ),
        paired(
            f"assets_verify_{kind}",
            [verified["cpu_s"] for _, verified in pairs],
            [alone["cpu_s"] for alone, _ in pairs],
            [verified["cpu_s"] / alone["cpu_s"] for alone, verified in pairs],
            f"{count:,} assets, CPU s; {_told(verified)}; hashing alone: {_told(alone)}",
        ),
    ]


def _told(found: dict[str, Any]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(found["requests"].items()))


@contextmanager
def _bucket(folder: Path) -> Iterator[str]:
    """Start a server and yield the URL of a campaign in its bucket."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.servers import BUCKET, KEY, SECRET, S3Server

    (folder / "server").mkdir()
    server = S3Server(folder / "server")
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=server.endpoint)
    try:
        yield f"s3://{BUCKET}/assets"
    finally:
        server.end()


# --- in a process of its own ----------------------------------------------------------------------------------------


def _store(output: str) -> CountedStore:
    from sdbatch.storage import open_campaign

    return CountedStore(open_campaign(output, {}))


def make(output: str, manifest: str, count: str) -> dict[str, Any]:
    """Fill a campaign with one run's pictures, as workers and driver leave them."""
    from sdbatch.campaign.index import RunIndex
    from sdbatch.campaign.write import put_commit, request_columns
    from sdbatch.driver.rows.scan import ResolvedManifest
    from sdbatch.job import parse_job
    from sdbatch.plan.seeds import derived_seeds
    from sdbatch.recipe import parse_recipe
    from sdbatch.storage import local
    from sdbatch.types import Request, Unit

    local.os.fsync = lambda _: None  # type: ignore[attr-defined]  # what a disk takes to be sure is not measured here
    store = _store(output)
    Path(manifest).mkdir()
    ids = [f"row-{number:06d}" for number in range(int(count))]
    pq.write_table(pa.table({"id": ids, "prompt": [f"a town, view {one}" for one in ids]}), f"{manifest}/rows.parquet")
    job = parse_job(
        {
            "manifest": manifest,
            "output": output,
            "models": {"null": {"path": "builtin:tiny-random", "num_gpus": 0}},
            "defaults": {"task": "text-to-image", "num_inference_steps": 2, "height": PIXELS, "width": PIXELS},
        }
    )
    index, num_bytes, number = RunIndex(store, RUN), 0, 0
    resolved = ResolvedManifest(job)
    resolved.publish(store, RUN)
    for part in resolved.parts(["id", "request_key", "recipe", "model", "batch_key", "cost_tflop", "shape"]):
        for start in range(0, part.num_rows, UNIT_ROWS):
            of_unit = part.slice(start, UNIT_ROWS).to_pylist()
            requests = tuple(Request(**one, outputs=(0,), sources=()) for one in of_unit)
            made = [
                {**request_columns(one, parse_recipe(one.recipe), 0), **_asset(store, one, seed)}
                for one, seed in zip(requests, derived_seeds(0, [one.id for one in requests]), strict=True)
            ]
            unit = Unit(id=f"{number:06d}", model="null", requests=requests, batch_size=32, cost_tflop=1.0)
            put_commit(store, RUN, unit.id, made)
            index.add(unit, ())
            num_bytes, number = num_bytes + sum(one["asset_bytes"] for one in made), number + 1
    index.write_rest()
    resolved.close()
    return {"bytes": num_bytes}


def _asset(store: Any, request: Any, seed: int) -> dict[str, Any]:
    """Draw, encode and put one picture; return its columns."""
    from sdbatch.campaign import layout
    from sdbatch.encode.image import encode_image, thumbnail
    from sdbatch.job import Encode

    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (8, 8, 3), np.uint8)
    picture = small.repeat(PIXELS // 8, 0).repeat(PIXELS // 8, 1)
    encoded = encode_image(picture, Encode(), request_key=request.request_key, n=0, recipe=request.recipe)
    path = layout.asset(request.id, request.request_key, 0, encoded.suffix)
    store.put_new(path, encoded.data, encoded.media_type)
    return {
        "status": "ok",
        "asset": path,
        "sha256": hashlib.sha256(encoded.data).hexdigest(),
        "asset_bytes": len(encoded.data),
        "media_type": encoded.media_type,
        "asset_width": PIXELS,
        "asset_height": PIXELS,
        "adopted": False,
        "thumbnail": thumbnail(picture),
    }


def metadata(output: str) -> dict[str, Any]:
    """Write the metadata and the gallery, as the end of the run does."""
    from sdbatch.driver.compact import write_metadata

    return _counted(output, lambda store: write_metadata(store, RUN) and {})


def hashing(output: str) -> dict[str, Any]:
    """Read and hash every asset, one after the other, and nothing else."""

    def work(store: CountedStore) -> dict[str, Any]:
        entries = store.list("assets")
        return {"hashed": len({hashlib.sha256(store.read(entry.path)).hexdigest() for entry in entries})}

    return _counted(output, work)


def verify(output: str) -> dict[str, Any]:
    """Verify."""
    from sdbatch.campaign.verify import verify_campaign

    def work(store: CountedStore) -> dict[str, Any]:
        report = verify_campaign(store)
        return {"hashed": report.assets_hashed, "findings": len(report.findings)}

    return _counted(output, work)


def _counted(output: str, work: Any) -> dict[str, Any]:
    began_s = time.monotonic()
    store = _store(output)
    if "://" not in output:
        return {**work(store), "requests": dict(store.calls), "wall_s": round(time.monotonic() - began_s, 1)}
    with requests_of_buckets() as calls:
        return {**work(store), "requests": dict(calls), "wall_s": round(time.monotonic() - began_s, 1)}


MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "make": make,
    "metadata": metadata,
    "hashing": hashing,
    "verify": verify,
}

if __name__ == "__main__":
    from sdbatch.cli import prepare_command

    prepare_command()
    answer(MEASURES)

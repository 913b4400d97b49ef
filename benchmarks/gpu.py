r"""The worker on a GPU, without Ray: true architectures, random weights, against the eager loop in one run.

    python -m benchmarks.gpu [--only REGEX] [--seconds 60] [--batches JSON] [--options JSON] [--toy]

    manifest --> real plan --> two units in flight --> files and commits: rate, share of the matrix rate
             \-> one call a row and .save(): the eager loop, and the FLOPs of one call

FLOPs are those that torch's FlopCounterMode counts in denoiser and VAE, guidance as executed, text encoders left out.
`--toy` runs the same on a CPU in seconds and compares the pictures; its times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import manifest
from benchmarks.architectures import ARCHITECTURES, Architecture, make
from benchmarks.lab import load, machine, versions
from benchmarks.table import Row, full, row, to_json, to_markdown
from sdbatch.campaign.campaign import Campaign
from sdbatch.driver.scan import ResolvedManifest
from sdbatch.driver.select import Selection, pending_requests
from sdbatch.encode.asset import encode_asset, read_frames
from sdbatch.generate.host_memory import keep_freed_memory
from sdbatch.job import Encode, parse_job
from sdbatch.plan.window import Window
from sdbatch.storage import open_store
from sdbatch.types import Receipt, Request, Unit
from sdbatch.worker.render import Renderer
from sdbatch.worker.unit import UnitMaker

ROOT = Path(__file__).parents[1]
ROWS_MAX = 4096
EAGER_ROWS_MIN = 2
UNITS_MIN = 4
"""Units of the measured run at least: two are in flight, and the first and the last overlap with one other only."""

CPUS = 4
FLOAT32_TOLERANCE = 1
"""Steps of 8 bits between a row alone and in a batch, on a CPU; on a GPU in bf16 random weights magnify last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One architecture on this machine.

    Attributes:
        name: In `ARCHITECTURES`.
        architecture: Its row.
        folder: Of the model, the manifest, and what is made.
        device: `cuda` or `cpu`.
        seconds: How long the measured runs should last.
        is_toy: Small enough for a CPU.
        options: Further keys of the job's model.
        batch_sizes: The curve.
    """

    name: str
    architecture: Architecture
    folder: Path
    device: str
    seconds: float
    is_toy: bool
    options: Mapping[str, Any]
    batch_sizes: Sequence[int]

    @property
    def dtype(self) -> str:
        """Return the job's dtype."""
        return "float32" if self.is_toy else "bfloat16"

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the job's defaults."""
        return {**self.architecture.arguments, **(self.architecture.toy_arguments if self.is_toy else {})}

    @property
    def model(self) -> Path:
        """Return the model's folder."""
        return self.folder / "model"

    @property
    def rows(self) -> Path:
        """Return the manifest."""
        return self.folder / "rows.parquet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every architecture that fits, write results/gpu.json and gpu.md, print the table."""
    options = _options(arguments)
    device = "cpu" if options.toy else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU here; --toy runs the same at toy size on a CPU")
        return 2
    gpu = _gpu()
    peak = matrix_rate(device)
    print(f"{gpu}: {peak / 1e12:.1f} TFLOP/s in matrix products; load {load()}", flush=True)
    measured = []
    for name in ARCHITECTURES:
        if re.search(options.only, name) and _fits(name, device):
            measured.append(_measured(name, device, peak, options))
    where = {"machine": {**machine(), "gpu": gpu}, "versions": versions()}
    _write({**where, "is_toy": options.toy, "matrix_tflop_per_s": peak / 1e12, "measured": measured}, options.out)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=main.__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help=f"of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measured run, after warm-up")
    parser.add_argument(
        "--options", type=json.loads, default={}, metavar="JSON", help="further keys of the job's model"
    )
    parser.add_argument("--batches", type=json.loads, metavar="JSON", help="batch sizes of the curve, such as [8,16]")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args(arguments)


def _measured(name: str, device: str, peak: float, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one architecture in a folder that goes with it: a model is up to 30 GB."""
    with tempfile.TemporaryDirectory(prefix="sdb") as folder:
        bench = Bench(
            name=name,
            architecture=ARCHITECTURES[name],
            folder=Path(folder),
            device=device,
            seconds=options.seconds,
            is_toy=options.toy,
            options={**({} if options.toy else ARCHITECTURES[name].model), **options.options},
            batch_sizes=options.batches or ((1, 2) if options.toy else ARCHITECTURES[name].batch_sizes),
        )
        found = measure(bench, peak)
    print(json.dumps(found), flush=True)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return found


def measure(bench: Bench, peak: float) -> dict[str, Any]:
    """Return the figures of one architecture as plain values.

    Args:
        bench: The architecture and how to measure it.
        peak: FLOP/s of this device in matrix products.

    Raises:
        RuntimeError: When a row failed, or on a CPU when the two arms' pictures differ.
    """
    make(bench.architecture, bench.model, device=bench.device, dtype=getattr(torch, bench.dtype), is_toy=bench.is_toy)
    manifest.write(bench.rows, 64 if bench.is_toy else ROWS_MAX, 1)
    ours = _ours(bench)
    eager = _eager(bench, ours.pop("ids"))
    share = eager["tflop"] * 1e12 / peak
    return {
        "name": bench.name,
        "arguments": bench.arguments,
        "dtype": bench.dtype,
        "options": dict(bench.options),
        "tflop": eager["tflop"],
        "rate_per_s": ours["rate_per_s"],
        "eager_rate_per_s": eager["rate_per_s"],
        "ratio": ours["rate_per_s"] / eager["rate_per_s"],
        "share_of_matrix_rate": share * ours["rate_per_s"],
        "eager_share_of_matrix_rate": share * eager["rate_per_s"],
        **{key: value for key, value in ours.items() if key != "rate_per_s"},
        "eager_rows": eager["rows"],
        "difference": _difference(bench),
        "load": load(),
    }


def table_rows(measured: Sequence[Mapping[str, Any]], gpu: str) -> list[Row]:
    """Return the table's rows of what was measured."""
    rows = []
    for one in measured:
        target = ARCHITECTURES[one["name"]].target
        if target is None:
            continue
        name, judged = target
        figure = {"rate": one["rate_per_s"], "share": one["share_of_matrix_rate"]}[judged]
        baseline = {"rate": one["eager_rate_per_s"], "share": one["eager_share_of_matrix_rate"]}[judged]
        rows.append(
            row(name, ours=figure, baseline=baseline, note=f"{gpu}; baseline: eager loop; batch {one['batch']}")
        )
    shares = [one["gpu_busy"] for one in measured if one["gpu_busy"] is not None]
    if shares:
        rows.append(row("gpu_busy", ours=min(shares), note=f"{gpu}; the lowest of {len(shares)} models"))
    return rows


# --- ours ---


def _ours(bench: Bench) -> dict[str, Any]:
    """Run the worker: the batch curve, then the best batch size for as long as asked."""
    curve: dict[int, float] = {}
    first_s = 0.0
    with _units(bench) as (maker, take):
        for batch_size in bench.batch_sizes:
            begin_s = time.perf_counter()
            warm, timed = take(batch_size, 2 * batch_size)
            _check([maker.make(warm)])
            first_s = first_s or time.perf_counter() - begin_s
            receipt = _check([maker.make(timed)])[0]
            if receipt.batch_size < batch_size:  # halved: it does not fit
                break
            curve[batch_size] = receipt.rows_generated / receipt.generate_s
        best = max(curve, key=lambda size: curve[size])
        wanted = max(UNITS_MIN * best, math.ceil(0 if bench.is_toy else bench.seconds * curve[best]))
        chosen = take(best, wanted)
        begin_s = time.perf_counter()
        with _busy() as busy, ThreadPoolExecutor(2) as pool:
            receipts = _check(list(pool.map(maker.make, chosen)))
        wall_s = time.perf_counter() - begin_s
    made = sum(receipt.rows_generated for receipt in receipts)
    return {
        "rate_per_s": made / wall_s,
        "rows": made,
        "ids": [request.id for unit in chosen for request in unit.requests],
        "batch": best,
        "curve_per_s": curve,
        "model_share": sum(receipt.generate_s for receipt in receipts) / wall_s,
        "gpu_busy": fmean(busy) if busy else None,
        "first_unit_s": first_s,
    }


@contextlib.contextmanager
def _units(bench: Bench) -> Iterator[tuple[UnitMaker, Callable[[int, int], list[Unit]]]]:
    """Plan the manifest as a run does; yield what makes units of it and `take(batch_size, rows)`, one batch each."""
    job = parse_job(
        {
            "manifest": str(bench.rows),
            "output": str(bench.folder / "campaign"),
            "models": {bench.name: _model_options(bench)},
            "defaults": {"task": bench.architecture.task, "model": bench.name, **bench.arguments},
            "determinism": "fast",
        }
    )
    keep_freed_memory()  # as in a worker's process
    resolved_manifest = ResolvedManifest(job)
    try:
        store = open_store(job.output, job.storage)
        revisions = {name: model.revision for name, model in resolved_manifest.scanned.models.items()}
        maker = UnitMaker("gpu", job, Renderer(job, revisions), store, "gpu")
        requests = pending_requests(resolved_manifest, Campaign(store).done(), Selection())
        yield maker, partial(_take, bench.name, requests, count())
    finally:
        resolved_manifest.close()


def _take(name: str, requests: Iterator[Request], numbers: Iterator[int], batch_size: int, rows: int) -> list[Unit]:
    """Take the next rows as units of one batch each; all of the manifest when there are fewer."""
    window = Window({name: batch_size})
    for request in islice(requests, math.ceil(rows / batch_size) * batch_size):
        window.add(request)
    units = []
    while window.num_requests:
        unit = window.take(name, 0.0)  # which is one whole batch
        units.append(replace(unit, id=f"{next(numbers):06d}"))
    return units


def _model_options(bench: Bench) -> dict[str, Any]:
    return {
        "path": str(bench.model),
        "revision": hashlib.sha1(bench.name.encode(), usedforsecurity=False).hexdigest(),
        "dtype": bench.dtype,
        "num_gpus": 0 if bench.is_toy else 1,
        "num_cpus": 1 if bench.is_toy else CPUS,
        **bench.options,
    }


def _check(receipts: list[Receipt]) -> list[Receipt]:
    """Return receipts in which every row was made."""
    for receipt in receipts:
        for outcome in receipt.outcomes:
            raise RuntimeError(f"{outcome.id}: {outcome.error_type}: {outcome.error_message}")
    return receipts


# --- the eager loop ---


def _eager(bench: Bench, ids: Sequence[str]) -> dict[str, Any]:
    """Run the loop a user would write, on the rows of our measured run."""
    import diffusers
    import pyarrow.parquet as pq

    cls = getattr(diffusers, bench.architecture.pipeline)
    pipe = cls.from_pretrained(bench.model, dtype=getattr(torch, bench.dtype)).to(bench.device)
    pipe.set_progress_bar_config(disable=True)
    arguments = {key: value for key, value in bench.arguments.items() if key not in {"fps", "scheduler"}}
    if scheduler := bench.arguments.get("scheduler"):
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    rows = [row for row in pq.read_table(bench.rows).to_pylist() if row["id"] in set(ids)]
    folder = bench.folder / "eager"
    folder.mkdir()
    flops = FlopCounterMode(display=False)
    with flops:
        _render(pipe, rows[0], arguments, bench, folder)
    begin_s = time.perf_counter()
    made = 0
    for values in rows[:EAGER_ROWS_MIN] if bench.is_toy else rows:
        _render(pipe, values, arguments, bench, folder)
        made += 1
        if made >= EAGER_ROWS_MIN and time.perf_counter() - begin_s > bench.seconds:
            break
    _wait_for(bench.device)
    return {"rate_per_s": made / (time.perf_counter() - begin_s), "rows": made, "tflop": _tflop(flops, pipe)}


def _render(pipe: Any, values: Mapping[str, Any], arguments: Mapping[str, Any], bench: Bench, folder: Path) -> None:
    generator = torch.Generator("cpu").manual_seed(values["seed"])
    output = pipe(values["prompt"], generator=generator, **arguments)
    if bench.architecture.task == "text-to-image":
        output.images[0].save(folder / f"{values['id']}.png")
        return
    # The same encoder as ours, as diffusers' own export needs one more package.
    frames_FHWC = (np.asarray(output.frames[0]) * 255).round().astype(np.uint8)
    clip = encode_asset(
        frames_FHWC, Encode(), fps=bench.arguments["fps"], sound=None, request_key="0" * 64, n=0, recipe="{}"
    )
    (folder / f"{values['id']}.mp4").write_bytes(clip.data)


def _tflop(flops: FlopCounterMode, pipe: Any) -> float:
    """Return what was counted outside the text encoders."""
    counts = flops.get_flop_counts()
    texts = {type(part).__name__ for name, part in pipe.components.items() if name.startswith("text_encoder")}
    text = sum(sum(counts[name].values()) for name in texts & counts.keys())
    return (flops.get_total_flops() - text) / 1e12


def _difference(bench: Bench) -> dict[str, float]:
    """Return how far the two arms' outputs are apart, in steps of 8 bits.

    Raises:
        RuntimeError: When they differ on a CPU.
    """
    found = []
    for file in sorted((bench.folder / "eager").iterdir()):
        ours = next((bench.folder / "campaign" / "assets").glob(f"{file.stem}-*"), None)
        if ours is not None:
            size = (bench.arguments["height"], bench.arguments["width"])
            mine, theirs = (read_frames(one.read_bytes(), file.suffix[1:], *size) for one in (ours, file))
            found.append(np.abs(mine.astype(np.int16) - theirs))
    if not found:
        raise RuntimeError("no row was made by both")
    largest = max(int(one.max()) for one in found)
    if bench.is_toy and bench.architecture.task == "text-to-image" and largest > FLOAT32_TOLERANCE:
        raise RuntimeError(f"{bench.name}: pictures differ by {largest} of 255")
    return {"rows": len(found), "max": largest, "mean": float(np.mean([one.mean() for one in found]))}


# --- the device ---


def matrix_rate(device: str) -> float:
    """Return FLOP/s of a large matrix product; normal random values, as zeros are up to an eighth faster."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best_s = math.inf
    for _ in range(5):
        _wait_for(device)
        begin_s = time.perf_counter()
        for _ in range(20):
            left @ right
        _wait_for(device)
        best_s = min(best_s, (time.perf_counter() - begin_s) / 20)
    return 2 * size**3 / best_s


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _gpu() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


def _fits(name: str, device: str) -> bool:
    if device == "cpu":
        return True
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    needed_gib = ARCHITECTURES[name].memory_gib
    if total_gib < needed_gib:
        print(f"{name}: left out, it needs {needed_gib:.0f} GiB of {total_gib:.0f}")
    return total_gib >= needed_gib


@contextlib.contextmanager
def _busy() -> Iterator[list[float]]:
    """Sample the share of time in which a kernel ran, five times a second; nothing without nvidia-smi."""
    shares: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield shares
        return
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: shares.extend(float(line) / 100 for line in lines), daemon=True)
    reader.start()
    try:
        yield shares
    finally:
        process.terminate()
        process.wait()
        reader.join(5)


def _write(result: dict[str, Any], out: Path) -> None:
    """Write and print; models measured earlier on the same machine with the same versions stay."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "gpu.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    is_same = all(kept.get(key) == result[key] for key in ("machine", "versions", "is_toy"))
    names = {one["name"] for one in result["measured"]}
    earlier = [one for one in kept["measured"] if one["name"] not in names] if is_same else []
    measured = [*earlier, *result["measured"]]
    rows = [] if result["is_toy"] else table_rows(measured, result["machine"]["gpu"])
    file.write_text(
        json.dumps({**result, "measured": measured, "rows": [to_json(one) for one in rows]}, indent=1) + "\n"
    )
    text = to_markdown([one for one in full(rows) if one.name.startswith("gpu_")])
    (out / "gpu.md").write_text(f"{result['machine']['gpu']}, torch {result['versions']['torch']}\n\n{text}")
    print(text)


if __name__ == "__main__":
    sys.exit(main())

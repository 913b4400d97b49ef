r"""One architecture as a campaign: ids in, files and commits out, against the eager loop, which saves files as well.

    manifest --> real plan --> two units in flight --> files and commits: rate, share of the matrix rate
             \-> one call a row and .save(): the eager loop, and the FLOPs of one call

FLOPs are those that torch's FlopCounterMode counts in denoiser and VAE, guidance as executed, text encoders left out.
On a CPU the two arms' pictures are compared.
"""

from __future__ import annotations

import contextlib
import math
import shutil
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
from benchmarks.architectures import ARCHITECTURES, Architecture
from benchmarks.gpu.bed import OpenRenderer, entry
from benchmarks.gpu.bench import Bench, Figures
from benchmarks.gpu.device import busy, matrix_rate, wait_for
from benchmarks.table import Row, row
from sdbatch.campaign.campaign import Campaign
from sdbatch.driver.one_run.select import pending_requests
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.encode.asset import encode_asset, read_frames
from sdbatch.job import Encode, parse_job
from sdbatch.plan.window import Window
from sdbatch.storage import open_store
from sdbatch.types import Receipt, Request, Unit
from sdbatch.worker.unit import UnitMaker

ROWS_MAX = 4096
EAGER_ROWS_MIN = 2
UNITS_MIN = 4
"""Units of the measured run at least: two are in flight, and the first and the last overlap with one other only."""

FLOAT32_TOLERANCE = 1
"""Steps of 8 bits between a row alone and in a batch, on a CPU; on a GPU in bf16 random weights magnify last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """One architecture, and what both arms need.

    Attributes:
        bench: The part.
        name: In `ARCHITECTURES`.
        folder: Of the manifest, and of what is made.
        batch_sizes: The curve.
        keys: Further ones of the job's model.
    """

    bench: Bench
    name: str
    folder: Path
    batch_sizes: Sequence[int]
    keys: Mapping[str, Any]

    @property
    def architecture(self) -> Architecture:
        """Return the row of the architecture."""
        return self.bench.architecture(self.name)

    @property
    def arguments(self) -> Figures:
        """Return the job's defaults."""
        return self.bench.arguments(self.name)

    @property
    def rows(self) -> Path:
        """Return the manifest."""
        return self.folder / "rows.parquet"


def measure(bench: Bench) -> None:
    """Measure the architecture that the part is named after: ours, then the eager loop."""
    folder = bench.folder / bench.part
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = bench.part.removesuffix("-campaign")
    architecture = bench.architecture(name)
    sizes = (1, 2) if bench.is_toy else CURVES.get(bench.part, architecture.batch_sizes)
    keys = {} if bench.is_toy else architecture.model
    arms = Arms(bench=bench, name=name, folder=folder, batch_sizes=sizes, keys=keys)
    bench.model(name)
    manifest.write(arms.rows, 64 if bench.is_toy else ROWS_MAX, 1)
    ours = bench.step("ours", lambda: _ours(arms))
    eager = bench.step("eager", lambda: _eager(arms, (ours or {}).get("ids", ["row-000000", "row-000001"])), needs_s=6)
    if ours and eager:
        bench.step("compared", lambda: _compared(arms, ours, eager))


CURVES: Mapping[str, Sequence[int]] = {"sdxl-4-steps": (16,), "sd15": (32,), "sdxl-campaign": (8,)}
"""Batch sizes where the whole curve would take too long on a card: each size compiles anew. The passes of SDXL's UNet
and decoder have equal shapes in both parts, guided and not, so that the second finds them compiled."""


def _compared(arms: Arms, ours: Figures, eager: Figures) -> Figures:
    """Return what both arms together tell."""
    share = eager["tflop"] * 1e12 / matrix_rate(arms.bench.device)
    return {
        "name": arms.name,
        "arguments": arms.arguments,
        "dtype": arms.bench.dtype,
        "options": dict(arms.keys),
        "tflop": eager["tflop"],
        "rate_per_s": ours["rate_per_s"],
        "eager_rate_per_s": eager["rate_per_s"],
        "ratio": ours["rate_per_s"] / eager["rate_per_s"],
        "share_of_matrix_rate": share * ours["rate_per_s"],
        "eager_share_of_matrix_rate": share * eager["rate_per_s"],
        "gpu_busy": ours["gpu_busy"],
        "batch": ours["batch"],
        "eager_rows": eager["rows"],
        "difference": _difference(arms),
    }


# --- ours ---


def _ours(arms: Arms) -> Figures:
    """Run the worker: the batch curve, then the best batch size for as long as asked."""
    bench = arms.bench
    curve: dict[int, float] = {}
    first_s = 0.0
    with _units(arms) as (maker, take):
        begin_s = time.perf_counter()
        for batch_size in arms.batch_sizes:
            warm, timed = take(batch_size, 2 * batch_size)
            _check([maker.make(warm)])
            first_s = first_s or time.perf_counter() - begin_s
            receipt = _check([maker.make(timed)])[0]
            if receipt.batch_size < batch_size:  # halved: it does not fit
                break
            curve[batch_size] = receipt.rows_generated / receipt.generate_s
            bench.put("curve_per_s", curve)
        best = max(curve, key=lambda size: curve[size])
        wanted = 0 if bench.is_toy else math.ceil(min(bench.seconds, bench.left_s / 2) * curve[best])
        chosen = take(best, max(UNITS_MIN * best, wanted))
        begin_s = time.perf_counter()
        with busy() as shares, ThreadPoolExecutor(2) as pool:
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
        "gpu_busy": fmean(shares) if shares else None,
        "first_unit_s": first_s,
    }


@contextlib.contextmanager
def _units(arms: Arms) -> Iterator[tuple[UnitMaker, Callable[[int, int], list[Unit]]]]:
    """Plan the manifest as a run does; yield what makes units of it and `take(batch_size, rows)`, one batch each."""
    job = parse_job(
        {
            "manifest": str(arms.rows),
            "output": str(arms.folder / "campaign"),
            "models": {arms.name: entry(arms.bench, arms.name, arms.keys)},
            "defaults": {"task": arms.architecture.task, "model": arms.name, **arms.arguments},
            "determinism": "fast",
            "quality_gate": False,  # random weights may draw plain pictures
        }
    )
    resolved_manifest = ResolvedManifest(job)
    renderer: OpenRenderer | None = None
    try:
        store = open_store(job.output, job.storage)
        revisions = {name: model.revision for name, model in resolved_manifest.scanned.models.items()}
        renderer = OpenRenderer(job, revisions, is_gpu_reserved=arms.bench.device == "cuda")
        maker = UnitMaker("gpu", job, renderer, store, "gpu")
        requests = pending_requests(resolved_manifest, Campaign(store).done(), Selection())
        yield maker, partial(_take, arms.name, requests, count())
    finally:
        resolved_manifest.close()
        if renderer is not None:
            renderer.leave()  # the eager loop gets the whole card


def _take(name: str, requests: Iterator[Request], numbers: Iterator[int], batch_size: int, rows: int) -> list[Unit]:
    """Take the next rows as units of one batch each; all of the manifest when there are fewer."""
    window = Window({name: batch_size})
    for request in islice(requests, math.ceil(rows / batch_size) * batch_size):
        window.add(request)
    units = []
    while window.num_requests:
        unit = window.take(name, 0.0)  # which is one whole batch
        # A unit that is alone keeps its batch size: the worker tries no other while the curve is measured.
        units.append(replace(unit, id=f"{next(numbers):06d}", solo=True))
    return units


def _check(receipts: list[Receipt]) -> list[Receipt]:
    """Return receipts in which every row was made."""
    for receipt in receipts:
        for outcome in receipt.outcomes:
            raise RuntimeError(f"{outcome.id}: {outcome.error_type}: {outcome.error_message}")
    return receipts


# --- the eager loop ---


def _eager(arms: Arms, ids: Sequence[str]) -> Figures:
    """Run the loop a user would write, on the rows of our measured run."""
    import diffusers
    import pyarrow.parquet as pq

    bench = arms.bench
    cls = getattr(diffusers, arms.architecture.pipeline)
    pipe = cls.from_pretrained(bench.model(arms.name), dtype=getattr(torch, bench.dtype)).to(bench.device)
    pipe.set_progress_bar_config(disable=True)
    arguments = {key: value for key, value in arms.arguments.items() if key not in {"fps", "scheduler"}}
    if scheduler := arms.arguments.get("scheduler"):
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    rows = [row for row in pq.read_table(arms.rows).to_pylist() if row["id"] in set(ids)]
    folder = arms.folder / "eager"
    folder.mkdir()
    flops = FlopCounterMode(display=False)
    with flops:
        _render(pipe, rows[0], arguments, arms, folder)
    _render(pipe, rows[0], arguments, arms, folder)  # warm: what counts FLOPs runs other code
    begin_s = time.perf_counter()
    made = 0
    for values in rows[:EAGER_ROWS_MIN] if arms.bench.is_toy else rows:
        _render(pipe, values, arguments, arms, folder)
        made += 1
        if made >= EAGER_ROWS_MIN and time.perf_counter() - begin_s > arms.bench.seconds / 2:
            break
    wait_for(arms.bench.device)
    return {"rate_per_s": made / (time.perf_counter() - begin_s), "rows": made, "tflop": _tflop(flops, pipe)}


def _render(pipe: Any, values: Mapping[str, Any], arguments: Mapping[str, Any], arms: Arms, folder: Path) -> None:
    generator = torch.Generator("cpu").manual_seed(values["seed"])
    output = pipe(values["prompt"], generator=generator, **arguments)
    if arms.architecture.task == "text-to-image":
        output.images[0].save(folder / f"{values['id']}.png")
        return
    # The same encoder as ours, as diffusers' own export needs one more package.
    frames_FHWC = (np.asarray(output.frames[0]) * 255).round().astype(np.uint8)
    clip = encode_asset(
        frames_FHWC, Encode(), fps=arms.arguments["fps"], sound=None, request_key="0" * 64, n=0, recipe="{}"
    )
    (folder / f"{values['id']}.mp4").write_bytes(clip.data)


def _tflop(flops: FlopCounterMode, pipe: Any) -> float:
    """Return what was counted outside the text encoders."""
    counts = flops.get_flop_counts()
    texts = {type(part).__name__ for name, part in pipe.components.items() if name.startswith("text_encoder")}
    text = sum(sum(counts[name].values()) for name in texts & counts.keys())
    return (flops.get_total_flops() - text) / 1e12


def _difference(arms: Arms) -> dict[str, float]:
    """Return how far the two arms' outputs are apart, in steps of 8 bits.

    Raises:
        RuntimeError: When they differ on a CPU.
    """
    found = []
    for file in sorted((arms.folder / "eager").iterdir()):
        ours = next((arms.folder / "campaign" / "assets").glob(f"{file.stem}-*"), None)
        if ours is not None:
            size = (arms.arguments["height"], arms.arguments["width"])
            mine, theirs = (read_frames(one.read_bytes(), file.suffix[1:], *size) for one in (ours, file))
            found.append(np.abs(mine.astype(np.int16) - theirs))
    if not found:
        raise RuntimeError("no row was made by both")
    largest = max(int(one.max()) for one in found)
    if arms.bench.is_toy and arms.architecture.task == "text-to-image" and largest > FLOAT32_TOLERANCE:
        raise RuntimeError(f"{arms.name}: pictures differ by {largest} of 255")
    return {"rows": len(found), "max": largest, "mean": float(np.mean([one.mean() for one in found]))}


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

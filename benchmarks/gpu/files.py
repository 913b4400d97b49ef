"""Behind the model: how many pictures a second a worker's threads encode and put, and what one picture takes."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures
from sdbatch.encode.asset import encode_asset
from sdbatch.job import Encode
from sdbatch.storage import open_store
from sdbatch.worker.finish import Finisher
from sdbatch.worker.outputs import RenderedOutput
from sdbatch.worker.record import Recorder

ROWS, TOY_ROWS = 64, 4
BATCH = 16
SIZE_PX = 1024


def measure(bench: Bench) -> None:
    """Draw pictures in a step each, then finish them as a worker does."""
    rows = TOY_ROWS if bench.is_toy else ROWS
    size = {} if bench.is_toy else {"height": SIZE_PX, "width": SIZE_PX}
    table = [row(bench, f"row-{n}", "sd15", "sd15", num_inference_steps=1, **size) for n in range(rows)]
    with bed(bench, {"sd15": ("sd15", {})}, table) as made:
        outputs: list[RenderedOutput] = []

        def drawn() -> Figures:
            taken, figures = made.timed([one["id"] for one in table], min(BATCH, rows))
            outputs.extend(taken)
            return figures

        if bench.step("drawn", drawn):
            bench.step("one", lambda: one_picture(outputs[0]))
            bench.step("finished", lambda: finished(made, outputs))
            bench.step("to_host", lambda: to_host(bench))


def one_picture(output: RenderedOutput) -> Figures:
    """Return the milliseconds of encoding one picture on one thread, by kind of picture."""
    drawn = output.generated.frames_FHWC
    ramp = np.arange(drawn.shape[2], dtype=np.uint32)
    smooth = np.broadcast_to((ramp[None, None, :, None] * 255 // drawn.shape[2]).astype(np.uint8), drawn.shape)
    found: Figures = {}
    for name, frames in {"drawn": drawn, "smooth": np.ascontiguousarray(smooth)}.items():
        begin_s = time.perf_counter()
        encoded = encode_asset(frames, Encode(), fps=None, sound=None, request_key="0" * 64, n=0, recipe="{}")
        found[f"{name} ms"] = round(1e3 * (time.perf_counter() - begin_s), 2)
        found[f"{name} bytes"] = len(encoded.data)
    return found


def finished(made: Bed, outputs: list[RenderedOutput]) -> Figures:
    """Finish all outputs as fast as they can be handed in."""
    store = open_store(made.job.output, made.job.storage)
    finisher = Finisher(made.job, store, Recorder(job=made.job, worker="gpu"))
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    rows = [row for future in [finisher.submit([one], 0.0) for one in outputs] for row in future.result()]
    wall_s = time.perf_counter() - begin_s
    return {
        "rate_per_s": round(len(rows) / wall_s, 2),
        "cpu_ms_a_row": round(1e3 * (time.process_time() - cpu_s) / len(rows), 2),
        "ok": sum(row["status"] == "ok" for row in rows),
        "num_cpus": made.job.models["sd15"].num_cpus,
    }


def to_host(bench: Bench) -> Figures:
    """Return the milliseconds that a batch's pixels take from floats on the device to bytes on the host."""
    from sdbatch.generate.batch import _to_uint8

    size = bench.arguments("sd15")["height"] if bench.is_toy else SIZE_PX
    floats = torch.rand(BATCH, 1, 3, size, size, device=bench.device)
    found = []
    for _ in range(3):
        begin_s = time.perf_counter()
        _to_uint8(floats)
        found.append(round(1e3 * (time.perf_counter() - begin_s), 2))
    return {"rows": BATCH, "ms": found}

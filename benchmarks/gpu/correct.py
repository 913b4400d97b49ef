"""Whether the worker's memory is right on a card: switches of models, and a batch that does not fit.

A, B, A  --> what the old model left                     a call that runs out --> bytes before it, and at its retry
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

import sdbatch.generate.faults
from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures, allocated, release
from benchmarks.gpu.device import is_in_use

SMALL, LARGE = "sd15", "sdxl"
BATCH = 8
FEW_STEPS = 2


def measure(bench: Bench) -> None:
    """Look at both."""
    models = {SMALL: (SMALL, {"batch_size": "auto"}), LARGE: (LARGE, {})}
    rows = [
        *(row(bench, f"small-{n}", SMALL, SMALL, num_inference_steps=FEW_STEPS) for n in range(BATCH)),
        *(row(bench, f"large-{n}", LARGE, LARGE, num_inference_steps=FEW_STEPS) for n in range(2)),
    ]
    with bed(bench, models, rows) as made:
        bench.step("switches", lambda: switches(made))
        bench.step("out_of_memory", lambda: out_of_memory(made))


def switches(made: Bed) -> Figures:
    """Render with A, B, A and return the bytes that are allocated after each, and the modules that are alive."""
    found: Figures = {}
    for number, (name, ids) in enumerate(
        [(SMALL, ["small-0", "small-1"]), (LARGE, ["large-0", "large-1"]), (SMALL, ["small-2", "small-3"])]
    ):
        _, figures = made.timed(ids, 2)
        weights = _weights(made)
        release()
        found[f"{number} {name}"] = {
            **figures,
            "allocated_bytes": allocated(),
            "weights_bytes": weights,
            "beyond_weights_mib": round((allocated() - weights) / 2**20, 2) if allocated() else None,
            "reserved_mib": round(torch.cuda.memory_reserved() / 2**20, 1) if is_in_use() else None,
            "live_modules": sum(isinstance(one, torch.nn.Module) for one in gc.get_objects()),
        }
    first, last = found[f"0 {SMALL}"], found[f"2 {SMALL}"]
    found["bytes_left_by_switches"] = last["allocated_bytes"] - first["allocated_bytes"]
    found["modules_left_by_switches"] = last["live_modules"] - first["live_modules"]
    return found


def _weights(made: Bed) -> int:
    """Return the bytes of the resident model's weights."""
    modules = {id(part): part for part in made.pipeline().components.values() if isinstance(part, torch.nn.Module)}
    return sum(weight.nbytes for module in modules.values() for weight in (*module.parameters(), *module.buffers()))


def out_of_memory(made: Bed) -> Figures:
    """Fill the card so that a batch does not fit and half of it does; return what the worker did, call by call."""
    ids = [f"small-{n}" for n in range(BATCH)]
    made.render(ids[:2], 2)  # the model is resident, and its libraries have their workspaces
    right = {size: made.timed(ids[:size], size) for size in (BATCH // 2, BATCH)}
    found: Figures = {"peak_gib": {size: figures.get("peak_gib") for size, (_, figures) in right.items()}}
    if made.bench.device == "cpu":
        return {**found, "left_out": "a CPU's memory is not filled"}
    half, whole = (round(right[size][1]["peak_gib"] * 2**30) for size in (BATCH // 2, BATCH))
    with errors_seen() as seen:
        for share in (0.5, 0.25, 0.1):
            release()
            room = half + round(share * (whole - half)) - allocated()
            free, _ = torch.cuda.mem_get_info()
            ballast = torch.empty(max(0, free - room), dtype=torch.uint8, device="cuda")
            made.live.clear()
            try:
                outputs, figures = made.timed(ids, BATCH, is_fixed=False)
            finally:  # a row that fails in the end ends this step: what was said before is kept
                errors = [{"kind": kind, "said": said[:400]} for kind, said in seen]
                made.bench.put(f"out_of_memory errors at share {share}", {"errors": errors, "calls": len(made.live)})
            live = [(rows, taken - ballast.nbytes) for rows, taken in made.live]
            del ballast
            found[f"share {share}"] = {"room_gib": round(room / 2**30, 3), **figures, "calls_rows_bytes": live}
            if seen:
                break
    apart = [
        int(np.abs(one.generated.frames_FHWC.astype(np.int16) - two.generated.frames_FHWC).max())
        for one, two in zip(outputs, right[BATCH][0], strict=True)
    ]
    return {
        **found,
        "errors": errors,
        "bytes_more_at_retry": max((taken for _, taken in live[1:]), default=0) - live[0][1],
        "difference_max": max(apart),
    }


@contextmanager
def errors_seen() -> Iterator[list[tuple[str, str]]]:
    """Note every error of a pipeline call with the kind that the product takes it for."""
    seen: list[tuple[str, str]] = []
    classify = sdbatch.generate.faults.failure_kind

    def noting(error: BaseException) -> str:
        kind = classify(error)
        seen.append((kind, f"{type(error).__name__}: {error}"))
        return kind

    sdbatch.generate.faults.failure_kind = noting
    try:
        yield seen
    finally:
        sdbatch.generate.faults.failure_kind = classify

"""Whether a row has the same bits wherever it stands: in a batch, beside other rows, in another process, compiled.

the row at places 0 and 3, other neighbours --> digests, in two processes side by side --> equal or not
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures, Results
from sdbatch.worker.environment import INDUCTOR_BY_RULE

BATCH = 4
STEPS = 8
PROCESSES = 2
MODELS = ("plain", "compiled")
LAYOUTS = {"first": ["x", "a", "b", "c"], "last": ["d", "e", "f", "x"]}


def measure(bench: Bench) -> None:
    """Compare them."""
    children = []  # nothing here touches the device before the processes part
    for number in range(PROCESSES):
        child = os.fork()
        if not child:
            _in_process(bench, number)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = [_read(bench, number) for number in range(PROCESSES)]
    for number, one in enumerate(found):
        bench.put(f"process {number}", one)
    for model in _models(bench):
        bench.step(f"{model} exact", lambda model=model: _compared(found, model))  # type: ignore[misc]


def _compared(found: list[Figures], model: str) -> Figures:
    by_process = [one[model]["digests"] for one in found]
    both = [digest for digests in by_process for digest in digests.values()]
    return {
        "places_equal": all(len(set(digests.values())) == 1 for digests in by_process),
        "processes_equal": by_process[0] == by_process[1],
        "distinct": len(set(both)),
        "neighbours_differ": all(one[model]["neighbours_differ"] for one in found),
    }


def _models(bench: Bench) -> tuple[str, ...]:
    return MODELS if bench.is_compiling else MODELS[:1]


def _file(bench: Bench, number: int) -> Path:
    return bench.folder / f"exact-{number}.json"


def _read(bench: Bench, number: int) -> Figures:
    return Results(file=_file(bench, number)).read()


def _in_process(bench: Bench, number: int) -> None:
    """Render in a child; it compiles on its own, as a worker of another node does."""
    signal.alarm(max(1, round(bench.left_s)))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(bench.folder / f"compiled-{number}")
    os.environ[INDUCTOR_BY_RULE] = "1"  # as in a worker of an `exact` job
    results = Results(file=_file(bench, number))
    status = 0
    try:
        results.put(MODELS[0], value=_rendered(bench, MODELS[0]))
        results.put("fast", value=_fast(bench))
        for model in _models(bench)[1:]:
            results.put(model, value=_rendered(bench, model))
    except BaseException as error:  # noqa: BLE001 -- a child never returns into its parent's code
        results.put("raised", value=f"{type(error).__name__}: {error}"[:2000])
        status = 1
    os._exit(status)


def _rendered(bench: Bench, model: str) -> Figures:
    """Return the digest of the row at both places, in `exact`."""
    keys = {"batch_size": BATCH, "compile": model == "compiled"}
    with bed(bench, {model: ("sd15", keys)}, _rows(bench, model), "exact") as made:
        places = {name: _pixels(made, ids, BATCH) for name, ids in LAYOUTS.items()}
        return {
            "digests": {name: _digest(pixels["x"]) for name, pixels in places.items()},
            "neighbours_differ": _digest(places["first"]["a"]) != _digest(places["first"]["x"]),
        }


def _fast(bench: Bench) -> Figures:
    """Return how far the row is apart from itself in `fast`, in batches of other sizes, in steps of 8 bits."""
    with bed(bench, {"plain": ("sd15", {})}, _rows(bench, "plain")) as made:
        alone = _pixels(made, ["x"], 1)["x"].astype(np.int16)
        found = {}
        for name, ids in {"2": ["a", "x"], "4": LAYOUTS["last"], "7": [*"abcdefx"]}.items():
            apart = np.abs(_pixels(made, ids, len(ids))["x"] - alone)
            found[name] = {"max": int(apart.max()), "mean": round(float(apart.mean()), 4)}
        return found


def _rows(bench: Bench, model: str) -> list[dict[str, Any]]:
    steps = {} if bench.is_toy else {"num_inference_steps": STEPS}
    return [row(bench, name, model, "sd15", **steps) for name in "xabcdef"]


def _pixels(made: Bed, ids: list[str], batch: int) -> dict[str, NDArray[np.uint8]]:
    outputs = made.render(ids, batch)
    return {name: one.generated.frames_FHWC for name, one in zip(ids, outputs, strict=True)}


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]

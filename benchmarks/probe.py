"""Notes when a process is in the model, the same way in every arm.

    install() --> outermost calls of pipeline, denoiser and VAE --> <folder>/<process>.jsonl --> read()

The classes themselves are wrapped, so an arm's code stays as it would be written. A note costs some ten microseconds
beside calls of a hundred milliseconds.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "SDBATCH_BENCH_NOTES"
"""Environment variable: where notes go; nothing is noted without it."""

_depth = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One outermost call.

    Attributes:
        process: Its id.
        kind: `call` for time in the model, `load` for a model's load, `text` for what a unit encoded.
        begin_s: Wall clock.
        end_s: Wall clock.
        rows: Pictures that came out, or texts that were encoded; 0 where neither is known.
        cpu_s: CPU seconds of the calling thread in a call of the model, which is all where torch has one thread.
    """

    process: int
    kind: str
    begin_s: float
    end_s: float
    rows: int = 0
    cpu_s: float = 0.0


def install() -> None:
    """Wrap the classes of this process; heavy imports happen here."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    file = Path(folder) / f"{os.getpid()}.jsonl"
    noted = functools.partial(_noted, file)
    outermost = functools.partial(
        _wrap, note=lambda begin_s, result, cpu_s: noted("call", begin_s, _pictures(result), cpu_s)
    )
    outermost(StableDiffusionPipeline, "__call__")
    outermost(StableDiffusionPipeline, "encode_prompt")
    outermost(UNet2DConditionModel, "forward")
    outermost(AutoencoderKL, "decode")
    outermost(AutoencoderKL, "encode")
    _count_loads(StableDiffusionPipeline, noted)


def read(folder: Path) -> list[Note]:
    """Return all notes in order of their ends."""
    notes = [Note(**json.loads(line)) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(notes, key=lambda note: note.end_s)


def note(kind: str, begin_s: float, rows: int) -> None:
    """Note a call that ends now: for workers whose model is a sleep."""
    if folder := os.environ.get(FOLDER):
        _noted(Path(folder) / f"{os.getpid()}.jsonl", kind, begin_s, rows)


def _noted(file: Path, kind: str, begin_s: float, rows: int, cpu_s: float = 0.0) -> None:
    found = {"process": os.getpid(), "kind": kind, "begin_s": begin_s, "end_s": time.time(), "rows": rows}
    found["cpu_s"] = cpu_s
    with file.open("a") as lines:
        lines.write(json.dumps(found) + "\n")


def _wrap(owner: Any, name: str, note: Callable[[float, Any, float], None]) -> None:
    """Note the calls of a method that are not made inside another noted one."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if getattr(_depth, "is_inside", False):
            return method(*arguments, **named)
        _depth.is_inside = True
        begin_s, begin_cpu_s = time.time(), time.thread_time()
        try:
            result = method(*arguments, **named)
        finally:
            _depth.is_inside = False
        note(begin_s, result, time.thread_time() - begin_cpu_s)
        return result

    setattr(owner, name, wrapped)


def _count_loads(owner: Any, noted: Callable[[str, float, int], None]) -> None:
    load = owner.from_pretrained.__func__

    def wrapped(cls: Any, *arguments: Any, **named: Any) -> Any:
        begin_s = time.time()
        result = load(cls, *arguments, **named)
        noted("load", begin_s, 0)
        return result

    owner.from_pretrained = classmethod(wrapped)


def _pictures(result: Any) -> int:
    return len(getattr(result, "images", ()))

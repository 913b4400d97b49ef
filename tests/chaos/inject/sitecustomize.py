"""Faults put into the processes of a real `sdbatch run` from outside; the product knows nothing of them.

    SDBATCH_CHAOS (a plan, JSON) --> every Python process of the run --> a hook at sdbatch.points
    --> at the k-th passage of the point, one signal to the victim, once per run

What rows do is decided by wrapping the function that makes a batch, and constants are replaced, when their module is
imported.

Python imports a module of this name at its start when it lies on PYTHONPATH, and Ray's workers inherit the environment.
A point or a function that is gone ends the process with status 99 and leaves a file `broken`: a case must never pass
because nothing happened.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from support.servers import descendants

PLAN: dict[str, Any] = json.loads(os.environ.get("SDBATCH_CHAOS", "{}"))
BATCH = "sdbatch.generate.batch"
VAE = "diffusers.models.autoencoders.autoencoder_kl"
WORKER_TITLE = b"SdbatchWorker"
Hook = Callable[[ModuleType], None]
HOOKS: dict[str, list[Hook]] = {}
DRIVER = int(os.environ.setdefault("SDBATCH_CHAOS_DRIVER", str(os.getpid())))
"""The first Python process of a run is its driver; the others inherit its id."""


def folder() -> Path:
    return Path(PLAN["folder"])


def broken(text: str) -> NoReturn:
    (folder() / "broken").write_text(text)
    sys.stderr.write(f"chaos: {text}\n")
    os._exit(99)


def log(name: str, text: str) -> None:
    """Append a line to a file of the case; short lines are written whole, whoever writes."""
    handle = os.open(folder() / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (text + "\n").encode())
    finally:
        os.close(handle)


# --- points and victims ---------------------------------------------------------------------------------------------


def victims(name: str) -> list[int]:
    """Return the process ids of a victim that lives now; none when it is not there yet."""
    if name == "s3":
        return [int(PLAN["s3_pid"])]
    tree = descendants(DRIVER)
    if name == "cluster":
        return [*tree, DRIVER]
    if name == "driver":
        return [DRIVER]
    if name == "raylet":
        return [pid for pid in tree if read(pid, "comm").strip() == b"raylet"]
    assert name == "worker", f"no such victim: {name}"
    return [os.getpid()] if os.getpid() != DRIVER else [p for p in tree if WORKER_TITLE in read(p, "cmdline")][:1]


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def strike(point: dict[str, Any]) -> None:
    """Signal the victim, once per run, whoever comes first."""
    chosen = victims(PLAN["victim"])
    try:
        os.close(os.open(folder() / "struck", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    names = [read(pid, "comm").decode().strip() for pid in chosen]
    log("strikes", f"{len(chosen)} x {names[0]} by {'driver' if os.getpid() == DRIVER else 'worker'}")
    for pid in sorted(chosen, key=lambda pid: pid == os.getpid()):  # oneself last
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, PLAN["signal"])


class Passage:
    """Counts the passages of a point in this process."""

    def __init__(self, point: dict[str, Any]) -> None:
        self._point = point
        self._left = int(point["passage"])
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        is_here = (os.getpid() == DRIVER) == (self._point["process"] == "driver")
        if name != self._point["name"] or not is_here:
            return
        if PLAN["victim"] != "s3" and not victims(PLAN["victim"]):
            return  # passages count once the victim is there
        with self._lock:
            self._left -= 1
            is_now = self._left == 0
        if is_now:
            strike(self._point)


def point_hook(point: dict[str, Any]) -> Hook:
    def hook(module: ModuleType) -> None:
        if point["name"] not in module.POINTS:
            broken(f"{module.__name__} has no point {point['name']}; mend the table of points")
        module.install(Passage(point).count)

    return hook


def wrap(module: ModuleType, name: str, around: Callable[[Any], Any]) -> None:
    """Replace `function` or `Class.function` of a module by what `around` makes of it."""
    *outer, last = name.split(".")
    try:
        owner = functools.reduce(getattr, outer, module)
        original = getattr(owner, last)
    except AttributeError:
        broken(f"{module.__name__} has no {name}; mend the table of points")
    setattr(owner, last, around(original))


# --- what rows do ---------------------------------------------------------------------------------------------------


def record_made(module: ModuleType) -> None:
    """Write down the seed of every output that comes out of the pipeline: what was made twice is then known."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(model: Any, items: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            result = original(model, items, *args, **kwargs)
            log("made", f"{time.monotonic():.3f} {os.getpid()} " + " ".join(str(item.seed) for item in items))
            return result

        return call

    wrap(module, "make_batch", around)


def memoise_pipeline(module: ModuleType) -> None:
    """Let the model work once per batch size and its pictures stand for all others: rows then cost the engine alone."""
    known: dict[int, Any] = {}

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(model: Any, items: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            if len(items) not in known:
                known[len(items)] = original(model, items, *args, **kwargs)
            return known[len(items)]

        return call

    wrap(module, "make_batch", around)


_NAN = threading.local()


def poison_rows(module: ModuleType) -> None:
    """Let prompts decide: `[raises]`, `[exits]`, `[hangs]`, `[nan]`."""

    def exits() -> NoReturn:
        os._exit(7)

    def hangs() -> None:
        while True:
            time.sleep(1)

    def raises() -> NoReturn:
        raise ValueError("this row raises")

    fates: dict[str, Callable[[], None]] = {"[exits]": exits, "[hangs]": hangs, "[raises]": raises}

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(model: Any, items: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            prompts = [item.recipe.prompt for item in items]
            for mark, fate in fates.items():
                if any(mark in prompt for prompt in prompts):
                    log("met", mark)
                    fate()
            _NAN.rows = [number for number, prompt in enumerate(prompts) if "[nan]" in prompt]
            return original(model, items, *args, **kwargs)

        return call

    wrap(module, "make_batch", around)


def poison_pixels(module: ModuleType) -> None:
    """Make the decoded floats of `[nan]` rows NaN."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            decoded = original(*args, **kwargs)
            for number in getattr(_NAN, "rows", ()):
                log("met", "[nan]")
                decoded[0][number] = float("nan")
            return decoded

        return call

    wrap(module, "AutoencoderKL.decode", around)


# --- constants and the clock ----------------------------------------------------------------------------------------


def constant_hook(name: str, value: object) -> Hook:
    return lambda module: wrap(module, name, lambda _: value)


def jump_clock(seconds: float) -> None:
    """Once struck, `time.time` and the `datetime.now` of our own modules are so many seconds off."""
    from datetime import datetime, timedelta, tzinfo

    real = time.time
    mark = folder() / "struck"

    def offset_s() -> float:
        return seconds if mark.exists() else 0.0

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Jumping:
            return super().now(tz) + timedelta(seconds=offset_s())

    time.time = lambda: real() + offset_s()
    for module in PLAN["clock_modules"]:
        HOOKS.setdefault(module, []).append(constant_hook("datetime", Jumping))


# --- after an import ------------------------------------------------------------------------------------------------


class Watch(importlib.abc.MetaPathFinder):
    """Runs the hooks of a module right after it was executed, before its importer sees it."""

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        if fullname not in HOOKS or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is None or spec.loader is None:
            broken(f"there is no module {fullname}; mend the table of points")
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for hook in HOOKS[fullname]:
                hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm() -> None:
    for name, value in PLAN.get("constants", {}).items():
        module, _, attribute = name.partition(":")
        HOOKS.setdefault(module, []).append(constant_hook(attribute, value))
    if PLAN.get("null_model"):
        HOOKS.setdefault(BATCH, []).append(memoise_pipeline)
    HOOKS.setdefault(BATCH, []).append(record_made)
    if PLAN.get("poison"):
        HOOKS[BATCH].append(poison_rows)
        HOOKS.setdefault(VAE, []).append(poison_pixels)
    if PLAN.get("clock_s"):
        jump_clock(PLAN["clock_s"])
    if PLAN.get("point"):
        HOOKS.setdefault("sdbatch.points", []).append(point_hook(PLAN["point"]))
    sys.meta_path.insert(0, Watch())


if PLAN:
    PLAN.setdefault("signal", int(signal.SIGKILL))
    arm()

"""The clock of a device: its rates, the passes of modules on it, and the share of time in which a kernel ran."""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch


def is_in_use() -> bool:
    """Return whether this process has begun to use a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def wait_for(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: str) -> float:
    """Return FLOP/s of a large matrix product; normal random values, as zeros are up to an eighth faster."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best_s(device, lambda: left @ right)


def copy_rate(device: str) -> float:
    """Return bytes per second of a large copy on the device, bytes read and written counted."""
    source = torch.empty(4 << 30 if device == "cuda" else 16 << 20, dtype=torch.uint8, device=device)
    source.random_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_s(device, lambda: target.copy_(source), calls=4)


def host_rates(device: str) -> dict[str, float]:
    """Return GB/s of copies of 64 MiB between host and device, plain and pinned."""
    if device != "cuda":
        return {}
    there = torch.empty(64 << 20, dtype=torch.uint8, device="cuda").random_()
    plain, pinned = torch.empty_like(there, device="cpu"), torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True)
    moves: dict[str, Callable[[], Any]] = {
        "to_host": there.cpu,
        "to_pinned_host": lambda: pinned.copy_(there),
        "to_device": lambda: there.copy_(plain),
        "pinned_to_device": lambda: there.copy_(pinned),
    }
    return {name: round(there.nbytes / _best_s(device, move, calls=4) / 1e9, 2) for name, move in moves.items()}


def _best_s(device: str, do: Callable[[], Any], calls: int = 20) -> float:
    best_s = math.inf
    for _ in range(5):
        wait_for(device)
        begin_s = time.perf_counter()
        for _ in range(calls):
            do()
        wait_for(device)
        best_s = min(best_s, (time.perf_counter() - begin_s) / calls)
    return best_s


@dataclass(slots=True)
class _Pass:
    """One pass of a module: its events on the device, and the host's seconds to hand it out."""

    begin: Any
    end: Any = None
    host_begin_s: float = 0.0
    host_s: float = 0.0


@dataclass(slots=True)
class PassClock:
    """Measures the passes of modules on their device, and what lies between two passes of one module.

    Attributes:
        device: `cuda` or `cpu`.
        passes: By the module's name, in order.
    """

    device: str
    passes: dict[str, list[_Pass]] = field(default_factory=dict)

    @contextlib.contextmanager
    def watching(self, modules: dict[str, torch.nn.Module]) -> Iterator[None]:
        """Measure modules, by their names, while the block runs."""
        hooks = []
        for name, module in modules.items():
            taken = self.passes.setdefault(name, [])

            def begins(*_: object, taken: list[_Pass] = taken) -> None:
                taken.append(_Pass(begin=self._now(), host_begin_s=time.perf_counter()))

            def ends(*_: object, taken: list[_Pass] = taken) -> None:
                taken[-1].end = self._now()
                taken[-1].host_s = time.perf_counter() - taken[-1].host_begin_s

            hooks += [module.register_forward_pre_hook(begins), module.register_forward_hook(ends)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def figures(self) -> dict[str, Any]:
        """Return by module: passes, seconds on the device, seconds between them, the host's seconds to hand out one."""
        wait_for(self.device)
        found: dict[str, Any] = {}
        for name, passes in self.passes.items():
            done = [one for one in passes if one.end is not None]
            if done:
                found[name] = {
                    "passes": len(done),
                    "s": round(sum(self._between_s(one.begin, one.end) for one in done), 5),
                    "gaps_s": round(sum(self._between_s(one.end, two.begin) for one, two in pairwise(done)), 5),
                    "host_ms_a_pass": round(1e3 * sum(one.host_s for one in done) / len(done), 3),
                }
        return found

    def _now(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between_s(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) / 1e3 if self.device == "cuda" else end - begin


@contextlib.contextmanager
def busy() -> Iterator[list[float]]:
    """Sample the share of time in which a kernel ran on this process's GPU; nothing without nvidia-smi."""
    shares: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None or not torch.cuda.is_available():
        yield shares
        return
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    query = [program, f"--id={uuid}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: shares.extend(_shares(lines)), daemon=True)
    reader.start()
    try:
        yield shares
    finally:
        process.terminate()
        process.wait()
        reader.join(5)


def _shares(lines: Iterator[str]) -> Iterator[float]:
    for line in lines:
        with contextlib.suppress(ValueError):  # "[N/A]" where the driver does not say
            yield float(line) / 100

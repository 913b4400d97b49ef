"""Gives back the memory of what is no longer used: a call that failed, a model that was replaced."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

import torch


def release_memory(*, with_compiled: bool = False) -> None:
    """Free what nothing refers to any longer, cycles too, and return a GPU's unused blocks to its driver.

    Modules of diffusers and peft refer to themselves (hooks, adapters), and live on until cycles are looked for.

    Args:
        with_compiled: Whether compiled code is dropped as well; torch keeps it, and the modules it was made for.
    """
    if with_compiled and "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_at_hand(device: str) -> str:
    """Return what memory a device has, in words."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name()} has {free / 2**30:.2f} GiB free of {total / 2**30:.2f}"
    try:
        kib = _meminfo_kib()
    except OSError:
        return "the size of this machine's memory is not known"
    return f"this machine has {kib['MemAvailable'] / 2**20:.2f} GiB free of {kib['MemTotal'] / 2**20:.2f}"


def device_total() -> tuple[int, str]:
    """Return the bytes of the GPU in all, and its name."""
    return torch.cuda.mem_get_info()[1], torch.cuda.get_device_name()


def host_total() -> float:
    """Return the bytes of memory that this process may take: the machine's, or its container's bound."""
    try:
        total: float = _meminfo_kib()["MemTotal"] * 1024
    except OSError:
        return math.inf
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def _meminfo_kib() -> dict[str, int]:
    lines = (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines}

"""Gives back the memory of what is no longer used: a call that failed, a model that was replaced."""

from __future__ import annotations

import gc
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
    kib = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            kib[name] = int(value.split()[0])
    except OSError:
        return "the size of this machine's memory is not known"
    return f"this machine has {kib['MemAvailable'] / 2**20:.2f} GiB free of {kib['MemTotal'] / 2**20:.2f}"

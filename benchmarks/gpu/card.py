"""The card itself: what it is called, what it can do, and what a worker says of it when it starts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Figures
from benchmarks.gpu.device import copy_rate, host_rates, matrix_rate

PACKAGES = (
    "torch", "triton", "diffusers", "transformers", "accelerate", "peft", "pyarrow", "pydantic", "numpy", "pillow",
    "torchao", "bitsandbytes", "gguf", "flash-attn", "flash-attn-3", "sageattention", "xformers", "kernels",
)  # fmt: skip


def measure(bench: Bench) -> None:
    """Measure the card."""
    bench.step("packages", _packages)
    bench.step("start_check", lambda: _start_check(bench))
    bench.step("worker_versions", _worker_versions)
    bench.step("card", _card)
    bench.step("rates", lambda: _rates(bench.device))


def measure_hidden(bench: Bench) -> None:
    """Hide every GPU from torch, and see that a worker that was given one refuses to run on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    bench.step("start_check", lambda: _start_check(bench))


def _packages() -> Figures:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    tools = {name: shutil.which(name) or "none" for name in ("g++", "gcc", "nvcc", "ninja", "nvidia-smi")}
    return {**found, **tools, "cores": len(os.sched_getaffinity(0)), "python": sys.version.split()[0]}


def _start_check(bench: Bench) -> Figures:
    """Return what the worker's start would say with one GPU asked for, with none named and one reserved, and none."""
    from sdbatch.generate.device import device_of, driver_version, gpu_fault, has_card

    found: Figures = {"gpu_fault": gpu_fault(), "has_card": has_card(), "driver": driver_version()}
    for name, (num_gpus, is_reserved) in {
        "num_gpus_1": (1.0, True),
        "null_reserved": (None, True),
        "null_not_reserved": (None, False),
        "num_gpus_0": (0.0, False),
    }.items():
        try:
            device = device_of(num_gpus, is_reserved=is_reserved)
            found[name] = f"{device.name} {device.note}".strip()
        except Exception as error:  # noqa: BLE001 -- whatever it raises is what is asked for
            found[name] = f"{type(error).__name__}: {error}"
    found["is_right"] = bench.device == "cpu" or found["num_gpus_1"].startswith(
        "GpuUnusable" if found["gpu_fault"] else "cuda"
    )
    return found


def _worker_versions() -> Figures:
    from sdbatch.generate.versions import worker_versions

    return dict(worker_versions(uses_gpu=True))


def _card() -> Figures:
    if not torch.cuda.is_available():
        return {"name": "none"}
    about = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    figures: Figures = {
        "name": about.name,
        "capability": list(torch.cuda.get_device_capability()),
        "architectures": torch.cuda.get_arch_list(),
        "multiprocessors": about.multi_processor_count,
        "total_gib": round(total / 2**30, 2),
        "free_gib": round(free / 2**30, 2),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF"),
    }
    if program := shutil.which("nvidia-smi"):
        asked = "name,driver_version,memory.total,power.limit,clocks.sm,clocks.max.sm,temperature.gpu,ecc.mode.current"
        command = [program, f"--query-gpu={asked}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)  # what it says of a failure is kept
        figures["nvidia_smi"] = (said.stdout or said.stderr).strip()
    return figures


def _rates(device: str) -> dict[str, Any]:
    return {
        "matrix_tflop_per_s": round(matrix_rate(device) / 1e12, 2),
        "copy_gb_per_s": round(copy_rate(device) / 1e9, 1),
        "host_gb_per_s": host_rates(device),
    }

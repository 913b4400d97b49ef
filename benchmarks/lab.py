"""What a group of rows is given: a folder, how often, which seed; and the machine it ran on, in words."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path

ALIKE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_worker_niceness": "0",  # 15 by default: on a busy machine a loop beside it would win by that
}
"""Environment of every arm."""

LIBRARIES = ("sdbatch", "torch", "diffusers", "transformers", "accelerate", "ray", "pyarrow", "numpy", "pillow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Where and how a group measures.

    Attributes:
        folder: Its own, empty when it begins.
        pairs: How often every arm runs, in turns with the others.
        seed: Of whatever is drawn.
        is_quick: Whether only counts and equality of outputs are wanted: the smallest size that shows them.
    """

    folder: Path
    pairs: int = 5
    seed: int = 20261121
    is_quick: bool = False


def machine() -> dict[str, str | int]:
    """Return what the figures depend on; no name and no path of this machine."""
    info = _lines("/proc/cpuinfo")
    memory_kib = int(_lines("/proc/meminfo").get("MemTotal", "0 kB").split()[0])
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20),
        "system": platform.system(),
        "python": platform.python_version(),
        "gpu": "none",
    }


def versions() -> dict[str, str]:
    """Return the version of every library the figures depend on; "none" for one that is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def start_ray(num_cpus: int) -> None:
    """Start Ray in this process and on this machine, with logical CPUs; it ends with the process."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="sdbatch",
    )


def _lines(path: str) -> dict[str, str]:
    """Return the first value of every `name: value` line of a file, nothing where there is no such file."""
    found: dict[str, str] = {}
    file = Path(path)
    for line in file.read_text().splitlines() if file.is_file() else ():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found

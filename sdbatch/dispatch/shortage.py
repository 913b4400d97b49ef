"""What a worker waits for, in words: what its slot asks for, what the cluster has, and what others hold of it.

Pure: resources come as Ray counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.dispatch.executor import Shape

_UNITS: Final = {"GPU": 1.0, "CPU": 1.0, "memory": float(2**30)}
_NAMES: Final = {"GPU": "GPU", "CPU": "CPU", "memory": "GiB of memory"}


def shortage_text(shape: Shape, total: Mapping[str, float], free: Mapping[str, float], *, grows: bool = True) -> str:
    """Return what a worker of a shape waits for.

    Args:
        shape: Its slot, with the GPUs as a number.
        total: Resources of the whole cluster (`CPU`, `GPU`, `memory` in bytes).
        free: What of them nobody holds.
        grows: Whether nodes may be added to it.
    """
    asked = _asked(shape)
    counts = {name: (total.get(name, 0.0) / _UNITS[name], free.get(name, 0.0) / _UNITS[name]) for name in asked}
    shown = [f"{has:g} {_NAMES[name]} ({left:g} free)" for name, (has, left) in counts.items() if asked[name] or has]
    text = f"each asks for {shape.words}; the cluster has {_listed(shown)}"
    if names := lacking(shape, total):
        return f"{text}: too few {_listed(names)} for one worker" + (", unless nodes are added" if grows else "")
    if held := lacking(shape, free):
        return f"{text}: other jobs, or workers of this run that still start, hold {_listed(held)}"
    return f"{text}: no single node has that much free, or the worker still starts"


def lacking(shape: Shape, resources: Mapping[str, float]) -> list[str]:
    """Return the names of what there is too little of for a worker of a shape."""
    return [_NAMES[name] for name, value in _asked(shape).items() if resources.get(name, 0.0) / _UNITS[name] < value]


def _asked(shape: Shape) -> dict[str, float]:
    asked = {"GPU": shape.num_gpus or 0.0, "CPU": float(shape.num_cpus)}
    return {**asked, "memory": shape.memory_gib} if shape.memory_gib else asked


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

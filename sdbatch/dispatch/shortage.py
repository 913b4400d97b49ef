"""What a worker waits for, in words: what its slot asks for, what the cluster has, and what others hold of it.

Pure: resources come as Ray counts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.dispatch.executor import Shape

_GIB = 2**30


def shortage_text(shape: Shape, total: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Return what a worker of a shape waits for.

    Args:
        shape: Its slot, with the GPUs as a number.
        total: Resources of the whole cluster (`CPU`, `GPU`, `memory` in bytes).
        free: What of them nobody holds.
    """
    asked = {"GPU": shape.num_gpus or 0.0, "CPU": float(shape.num_cpus)}
    scale = {"GPU": 1.0, "CPU": 1.0}
    if shape.memory_gib:
        asked["memory"], scale["memory"] = shape.memory_gib, float(_GIB)
    counts = {name: (total.get(name, 0.0) / scale[name], free.get(name, 0.0) / scale[name]) for name in asked}
    names = {"GPU": "GPU", "CPU": "CPU", "memory": "GiB of memory"}
    shown = [f"{has:g} {names[name]} ({left:g} free)" for name, (has, left) in counts.items() if asked[name] or has]
    text = f"each asks for {shape.words}; the cluster has {_listed(shown)}"
    lacking = [names[name] for name, (has, _) in counts.items() if has < asked[name]]
    held = [names[name] for name, (_, left) in counts.items() if left < asked[name]]
    if lacking:
        return f"{text}: too few {_listed(lacking)} for one worker, unless nodes are added"
    if held:
        return f"{text}: other jobs, or workers of this run that still start, hold {_listed(held)}"
    return f"{text}: no single node has that much free, or the worker still starts"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

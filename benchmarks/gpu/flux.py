"""Flux of its true width with fewer blocks: each attention backend, what quantising and offloading cost.

a model of 4 + 8 blocks (of 19 + 38) --> seconds of a pass by backend --> all blocks by proportion
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures, peak
from benchmarks.gpu.device import is_in_use

NAME = "flux-few"
STEPS = 6
SIZES, TOY_SIZES = (1, 4), (1, 2)
BACKENDS = (
    "native",
    "_native_cudnn",
    "_native_flash",
    "_native_efficient",
    "flash",
    "_flash_3",
    "_flash_varlen_3",
    "sage",
    "xformers",
    "flex",
)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "compile": {"compile": True},
    "offload model": {"offload": "model"},
    "offload group": {"offload": "group"},
}


def quantized(backend: str, kind: str, **keys: Any) -> Mapping[str, Any]:
    """Return an entry's keys that quantise its transformer, and further ones."""
    return {"quantize": {"transformer": {"backend": backend, "type": kind}}, **keys}


QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "torchao float8dq": quantized("torchao", "float8dq"),
    "torchao int8wo": quantized("torchao", "int8wo"),
    "bitsandbytes nf4": quantized("bitsandbytes", "nf4"),
    "torchao float8dq compile": quantized("torchao", "float8dq", compile=True),
    "bitsandbytes int8": quantized("bitsandbytes", "int8"),
}


def measure(bench: Bench) -> None:
    """Measure backends, then variants of the job's model entry."""
    sizes = TOY_SIZES if bench.is_toy else SIZES
    with bed(bench, {NAME: (NAME, {})}, _rows(bench)) as made:
        for size in sizes:
            bench.step(f"plain {size}", lambda size=size: _timed(made, size))  # type: ignore[misc]
        for name in BACKENDS[:2] if bench.is_toy else BACKENDS:
            bench.step(f"attention {name}", lambda name=name: _with_backend(made, name), needs_s=3)  # type: ignore[misc]
    _variants(bench, VARIANTS)


def measure_quantized(bench: Bench) -> None:
    """Measure quantised models; both packages touch the GPU when they are imported, so these have their own process."""
    names = ("plain", "torchao int8wo") if bench.is_toy else QUANTIZED
    _variants(bench, {name: QUANTIZED[name] for name in names})


def _variants(bench: Bench, variants: Mapping[str, Mapping[str, Any]]) -> None:
    for name, keys in variants.items():
        if keys.get("compile") and not bench.is_compiling:
            continue
        bench.step(f"variant {name}", lambda keys=keys: _variant(bench, keys), needs_s=12)  # type: ignore[misc]


def _variant(bench: Bench, keys: Mapping[str, Any]) -> Figures:
    found: Figures = {}
    with bed(bench, {NAME: (NAME, keys)}, _rows(bench)) as made:
        with peak(found, "load_peak_gib"):
            made.render(["row-0"], 1)
        if is_in_use():
            found["allocated_gib"] = round(torch.cuda.memory_allocated() / 2**30, 3)
        return {**found, **_timed(made, 1)}


def _rows(bench: Bench) -> list[Figures]:
    steps = {} if bench.is_toy else {"num_inference_steps": STEPS}
    return [row(bench, f"row-{n}", NAME, NAME, **steps) for n in range(max(SIZES))]


def _timed(made: Bed, size: int) -> Figures:
    ids = [f"row-{n}" for n in range(size)]
    made.render(ids, size)  # warm
    return made.clocked(ids, size)


def _with_backend(made: Bed, name: str) -> Figures:
    """Time calls with one of diffusers' attention backends, the job's own setting left as it is."""
    with attention_backend(AttentionBackendName(name)):
        return {str(size): _timed(made, size) for size in (TOY_SIZES if made.bench.is_toy else SIZES)}

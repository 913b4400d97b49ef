"""SDXL's pipeline calls at 1024 px, without files: batch sizes, where the time goes, what compiling gains, the decoder.

eager loop | ours at 1, 4, 16 | the decoder alone | regional compile | channels last | compiled whole
"""

from __future__ import annotations

import time
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures, peak, release
from benchmarks.gpu.device import PassClock, wait_for

NAME = "sdxl"
SIZES: tuple[int, ...] = (1, 4, 16)
COMPILED_SIZES: tuple[int, ...] = (4, 16)
TOY_SIZES: tuple[int, ...] = (1, 2, 3)
WARM_STEPS = 2
DECODED = (1, 4, 8)
EAGER_ROWS = 2


def measure(bench: Bench) -> None:
    """Measure all of it, the dearest to do without first."""
    sizes = TOY_SIZES if bench.is_toy else SIZES
    bench.step("eager_loop", lambda: eager_loop(bench))
    with bed(bench, {NAME: (NAME, {})}, _rows(bench, sizes)) as made:
        _batches(bench, made, "ours", sizes)
        bench.step("decoder", lambda: decoder(bench, made), needs_s=6)
    compiled = {"compile": True, "channels_last": True}
    sizes = TOY_SIZES[:2] if bench.is_toy else COMPILED_SIZES
    if bench.is_compiling:
        with bed(bench, {NAME: (NAME, compiled)}, _rows(bench, sizes)) as made:
            _batches(bench, made, "compiled", sizes, warm_s=35)
    with bed(bench, {NAME: (NAME, {"channels_last": True})}, _rows(bench, sizes[:1])) as made:
        _batches(bench, made, "channels_last", sizes[:1], warm_s=8)


def measure_whole(bench: Bench) -> None:
    """Measure the whole UNet and the VAE's decoder compiled: diffusers' own pipeline, with and without it, and ours."""
    bench.step("whole", lambda: whole_compile(bench))
    if bench.is_compiling:
        sizes = TOY_SIZES[:2] if bench.is_toy else COMPILED_SIZES
        compiled = {"compile": "whole", "channels_last": True}
        with bed(bench, {NAME: (NAME, compiled)}, _rows(bench, sizes)) as made:
            _batches(bench, made, "ours whole", sizes, warm_s=45)


def _rows(bench: Bench, sizes: tuple[int, ...]) -> list[Figures]:
    warm = {"num_inference_steps": 1 if bench.is_toy else WARM_STEPS}
    rows = [row(bench, f"warm-{n}", NAME, NAME, **warm) for n in range(max(sizes))]
    return [*rows, *(row(bench, f"row-{n}", NAME, NAME) for n in range(max(sizes)))]


def _batches(bench: Bench, made: Bed, label: str, sizes: tuple[int, ...], warm_s: float = 6) -> None:
    """Warm each size with a call of few steps, then time one of all steps."""
    for number, size in enumerate(sizes):
        warm = [f"warm-{n}" for n in range(size)]
        rows = [f"row-{n}" for n in range(size)]
        # A second size compiles shapes that change; later ones run what is there.
        needs_s = (warm_s if number < 2 else 3) + 1.2 * size
        if bench.step(f"{label} warm {size}", lambda ids=warm: made.timed(ids, len(ids))[1], needs_s=needs_s):  # type: ignore[misc]
            bench.step(f"{label} {size}", lambda ids=rows: made.clocked(ids, len(ids)), needs_s=1.2 * size)  # type: ignore[misc]


def eager_loop(bench: Bench) -> Figures:
    """Run the loop a user would write, one row a call, and count the FLOPs of a row."""
    pipe = _pipeline(bench)
    arguments = bench.arguments(NAME)
    flops = FlopCounterMode(display=False)
    with flops:
        _call(pipe, {**arguments, "num_inference_steps": 1}, 0)
    counts = {name: sum(ops.values()) / 1e12 for name, ops in flops.get_flop_counts().items() if "." not in name}
    passes = counts.get("UNet2DConditionModel", 0.0)
    decode = counts.get("Decoder", 0.0)
    clock = PassClock(bench.device)
    wait_for(bench.device)
    begin_s = time.perf_counter()
    with clock.watching({"unet": pipe.unet, "decoder": pipe.vae.decoder}):
        for seed in range(EAGER_ROWS):
            _call(pipe, arguments, seed)
    wait_for(bench.device)
    return {
        "rate_per_s": round(EAGER_ROWS / (time.perf_counter() - begin_s), 4),
        "rows": EAGER_ROWS,
        "tflop_one_step": counts,
        "tflop_a_row": round(passes * arguments["num_inference_steps"] + decode, 2),
        "passes": clock.figures(),
    }


def decoder(bench: Bench, made: Bed) -> Figures:
    """Return the GiB that decoding takes beyond weights and latents, by rows, in 16 bit and upcast, tiled too."""
    vae = made.pipeline().vae
    arguments = bench.arguments(NAME)
    found: Figures = {}
    begin_s = time.perf_counter()
    for dtype in (vae.dtype, torch.float32):
        vae.to(dtype)
        for size in TOY_SIZES if bench.is_toy else DECODED:
            shape = (size, vae.config.latent_channels, arguments["height"] // 8, arguments["width"] // 8)
            latents = torch.randn(shape, dtype=dtype, device=bench.device)
            name = f"{str(dtype).removeprefix('torch.')} {size}"
            with torch.inference_mode(), peak(found, f"{name} gib"):
                begin_s = time.perf_counter()
                vae.decode(latents)
                wait_for(bench.device)
            found[f"{name} s"] = round(time.perf_counter() - begin_s, 4)
    vae.enable_tiling()
    with torch.inference_mode(), peak(found, "float32 tiled gib"):
        vae.decode(latents[:1])
    vae.disable_tiling()
    vae.to(getattr(torch, bench.dtype))
    return found


def whole_compile(bench: Bench) -> Figures:
    """Time diffusers' own pipeline at one batch size, plain, with channels last, and with UNet and decoder compiled."""
    pipe = _pipeline(bench)
    size = 2 if bench.is_toy else 4
    found: Figures = {"batch": size}

    def timed(name: str) -> None:
        begin_s = time.perf_counter()
        _call(pipe, {**bench.arguments(NAME), "num_inference_steps": WARM_STEPS}, 0, size)
        wait_for(bench.device)
        found[f"{name} warm_s"] = round(time.perf_counter() - begin_s, 2)
        begin_s = time.perf_counter()
        _call(pipe, bench.arguments(NAME), 1, size)
        wait_for(bench.device)
        found[f"{name} rate_per_s"] = round(size / (time.perf_counter() - begin_s), 4)
        bench.put(f"whole so far: {name}", found)

    timed("plain")
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    if not bench.is_compiling:
        return found
    pipe.unet.compile(fullgraph=True)
    timed("unet")
    pipe.vae.decode = torch.compile(pipe.vae.decode)
    timed("unet and decoder")
    return found


def _pipeline(bench: Bench) -> Any:
    release()
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(bench.model(NAME), dtype=getattr(torch, bench.dtype))
    pipe.to(bench.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _call(pipe: Any, arguments: Figures, seed: int, rows: int = 1) -> Any:
    generators = [torch.Generator("cpu").manual_seed(seed + n) for n in range(rows)]
    with torch.inference_mode():
        return pipe([f"scene {n}" for n in range(rows)], generator=generators, **arguments)

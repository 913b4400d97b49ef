r"""What plans predict of memory against what a card takes: plain, offloaded by model and by group, quantised.

job's entry --> plan's prediction                       prediction / peak, by entry
            \-> one call --> torch.cuda.max_memory_allocated
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.bed import Bed, bed, row
from benchmarks.gpu.bench import Bench, Figures, release
from benchmarks.gpu.device import is_in_use
from benchmarks.gpu.flux import quantized
from sdbatch.checkpoints.fits import Peak, predicted_peak
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.families.peaks import OutputSize, peaks_of
from sdbatch.job import Model

STEPS = 2
MIB = 2**20


class Case(NamedTuple):
    """One entry of a job.

    Attributes:
        architecture: Its model.
        keys: Further ones of the entry.
        rows: Of the call.
    """

    architecture: str
    keys: Mapping[str, Any]
    rows: int = 1


CASES = (
    Case("sdxl", {}),
    Case("sdxl", {}, 4),
    Case("sdxl", {}, 8),
    Case("sdxl", {"vae": {"decode_batch": 1}}, 8),
    Case("sdxl", {"vae": {"decode_batch": 4}}, 8),
    Case("sdxl", {"offload": "model"}),
    Case("sdxl", {"offload": "group"}),
    Case("sdxl", {"offload_text_encoder": True}),
    Case("sd15", {}, 16),
    Case("flux-few", {}),
    Case("flux-few", {"offload": "model"}),
    Case("flux-few", {"offload": "group"}),
    Case("flux-few", {"layerwise_casting": "float8_e4m3fn"}),
    Case("flux-few", {"layerwise_casting": "float8_e4m3fn", "offload": "group"}),
    Case("flux-few", quantized("bitsandbytes", "nf4")),
    Case("flux-few", quantized("bitsandbytes", "nf4", offload="model")),
    Case("flux-few", quantized("torchao", "float8wo")),
    Case("flux-few", quantized("torchao", "float8dq")),
    Case("flux-few", quantized("torchao", "int8wo")),
    Case("flux-few", quantized("torchao", "int8wo", offload="model")),
    Case("wan", {}),
    Case("wan", {"compile": True}),
    Case("wan", {"offload": "group"}),
)
TOY_CASES = (Case("sdxl", {}), Case("flux-few", {"offload": "group"}))


def measure(bench: Bench) -> None:
    """Compare prediction and peak, case by case."""
    for case in TOY_CASES if bench.is_toy else CASES:
        entry = Model(path="m", **case.keys)
        words = [f"{name} {getattr(entry, name)}" for name in case.keys if name in ("offload", "offload_text_encoder")]
        words += [f"{one.backend} {one.type}" for one in entry.quantized.values()]
        words += [f"layerwise {entry.layerwise_casting}"] if entry.layerwise_casting else []
        words += ["compile"] if entry.compile else []
        words += [f"decode {entry.vae.decode_batch}"] if entry.vae.decode_batch else []
        label = f"{case.architecture} {', '.join(words) or 'plain'}, {case.rows} rows"
        bench.step(label, lambda case=case: _compared(bench, case), needs_s=5)  # type: ignore[misc]


def _compared(bench: Bench, case: Case) -> Figures:
    steps = {} if bench.is_toy else {"num_inference_steps": STEPS}
    ids = [f"row-{number}" for number in range(case.rows)]
    rows = [row(bench, name, case.architecture, case.architecture, **steps) for name in ids]
    entry: Figures = {"task": bench.architecture(case.architecture).task}
    with bed(bench, {case.architecture: (case.architecture, case.keys)}, [{**one, **entry} for one in rows]) as made:
        _, loading = made.timed(ids[:1], 1)  # workspaces of the libraries are there from now on
        release()
        resident = torch.cuda.memory_allocated() if is_in_use() else 0
        if is_in_use():
            torch.cuda.reset_peak_memory_stats()
        figures = made.clocked(ids, case.rows)
        predicted = _predicted(made, case)
        return {
            "load_s": loading["load_s"],
            "generate_s": figures["generate_s"],
            "decode_s": figures["decode_s"],
            "passes": figures["passes"],
            "devices": figures["devices"],
            "resident_mib": round(resident / MIB),
            **_ratios(predicted, figures.get("peak_gib", 0.0) * 2**30),
        }


def _predicted(made: Bed, case: Case) -> Peak | None:
    """Return the plan's prediction; activations of a model with fewer blocks are those of the whole one."""
    model = made.models[case.architecture]
    arguments = made.bench.arguments(case.architecture)
    size = OutputSize(
        arguments["height"], arguments["width"], arguments.get("num_frames", 1), arguments["guidance_scale"] > 1
    )
    published = 0 if case.architecture == "flux-few" else model.parameters
    return predicted_peak(model, module_parameters(model), size, case.rows, peaks_of(model.family.title, published))


def _ratios(predicted: Peak | None, peak: float) -> Figures:
    if predicted is None:
        return {"predicted": "no table has it"}
    phases = {
        name: round(getattr(predicted, name) / MIB) for name in ("denoising", "decoding", "workspace", "encoding")
    }
    with_workspace = max(predicted.denoising, predicted.decoding + predicted.workspace, predicted.encoding)
    return {
        **phases,
        "predicted_mib": round(with_workspace / MIB),
        "peak_mib": round(peak / MIB),
        "ratio": round(with_workspace / peak, 3) if peak else None,
        "needed_over_peak": round(predicted.needed / peak, 3) if peak else None,
    }

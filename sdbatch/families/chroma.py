"""Chroma, a Flux without guidance that is distilled: a negative prompt counts."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import MEGAPIXEL
from sdbatch.families.picture_routes import strength_routes
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family

_ROUTES: Final = strength_routes(
    "Chroma", {"max_sequence_length": int}, {"strength": 0.9}, {"strength": 0.6}, per_row_guidance=True
)

FAMILIES: Final = (
    Family(
        title="Chroma",
        class_name="ChromaPipeline",
        # ChromaInpaintPipeline has two guidances of its own, and is left out.
        tasks={task: routes for task, routes in _ROUTES.items() if task != "inpainting"},
        size_multiple=16,
        defaults={**MEGAPIXEL, "num_inference_steps": 35, "guidance_scale": 5.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=74.57,
        pixels_reference=1024 * 1024,
        parameters_reference=8_899_983_424,
        vae_is_shifted=True,
    ),
)

"""Stable Diffusion XL."""

from __future__ import annotations

from typing import Final

from sdbatch.families.control_routes import joined, union_routes
from sdbatch.families.picture_routes import controlled_routes
from sdbatch.families.schedulers import EPSILON_SCHEDULERS
from sdbatch.families.table import Family

FAMILIES: Final = (
    Family(
        title="Stable Diffusion XL",
        class_name="StableDiffusionXLPipeline",
        tasks=joined(
            controlled_routes(
                "StableDiffusionXL", 0.3, {"strength": 0.9999, "guidance_scale": 7.5}, empty_negative_differs=True
            ),
            union_routes(),
        ),
        size_multiple=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=6.761,
        pixels_reference=1024 * 1024,
        parameters_reference=2_567_463_684,
        cfg_layout="halves",
        takes_encoded_prompts=True,
    ),
)

"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from typing import Final

from sdbatch.families.control_routes import joined, sd3_routes
from sdbatch.families.picture_routes import strength_routes
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family

FAMILIES: Final = (
    Family(
        title="Stable Diffusion 3/3.5",
        class_name="StableDiffusion3Pipeline",
        tasks=joined(
            strength_routes(
                "StableDiffusion3",
                {"clip_skip": int, "max_sequence_length": int},
                {"num_inference_steps": 50, "strength": 0.6},
                {"num_inference_steps": 50, "strength": 0.6},
                per_row_guidance=True,
            ),
            sd3_routes(),
        ),
        size_multiple=16,
        defaults={"num_inference_steps": 28, "guidance_scale": 7.0},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokenizer="tokenizer_3",
        tokens_max=256,
        tflop_reference=8.904,
        pixels_reference=1024 * 1024,
        parameters_reference=2_028_328_000,
        vae_is_shifted=True,
        cfg_layout="halves",
    ),
)

"""Z-Image."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import MEGAPIXEL
from sdbatch.families.control_routes import joined, z_image_routes
from sdbatch.families.picture_routes import strength_routes
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family

FAMILIES: Final = (
    Family(
        title="Z-Image",
        class_name="ZImagePipeline",
        tasks=joined(
            strength_routes(
                "ZImage",
                {"cfg_normalization": bool, "cfg_truncation": float, "max_sequence_length": int},
                {"strength": 0.6},
                {"strength": 1.0},
            ),
            z_image_routes(),
        ),
        size_multiple=16,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=62.51,
        pixels_reference=1024 * 1024,
        parameters_reference=6_154_908_736,
        vae_is_shifted=True,
    ),
)

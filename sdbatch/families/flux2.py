"""Flux.2 Klein."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import MASKED, MEGAPIXEL, PLAIN, without
from sdbatch.families.picture_routes import MASK
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

FAMILIES: Final = (
    Family(
        title="Flux.2 Klein",
        class_name="Flux2KleinPipeline",
        tasks={
            "text-to-image": (
                Route(
                    pipeline="Flux2KleinPipeline",
                    arguments=without(PLAIN, "negative_prompt"),
                    parameters={"max_sequence_length": int},
                ),
            ),
            "image-to-image": (
                Route(
                    pipeline="Flux2KleinPipeline",
                    arguments={**without(PLAIN, "negative_prompt"), "fit": "", "images": "image"},
                    images=(1, 10),
                    # A list of images is one set of references for every prompt of the call.
                    rows="shared",
                    parameters={"max_sequence_length": int},
                ),
            ),
            "inpainting": (
                Route(
                    pipeline="Flux2KleinInpaintPipeline",
                    arguments=without(MASKED, "negative_prompt"),
                    images=(1, 1),
                    sources=MASK,
                    parameters={"max_sequence_length": int},
                    defaults={"guidance_scale": 8.0, "strength": 0.8},
                ),
            ),
        },
        size_multiple=16,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=34.82,
        pixels_reference=1024 * 1024,
        parameters_reference=3_875_544_576,
        step_caches=frozenset({"MagCache", "TaylorSeerCache"}),
    ),
)

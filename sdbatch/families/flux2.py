"""Flux.2: dev, whose guidance is distilled, and Klein."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sdbatch.families.arguments import MASKED, MEGAPIXEL, PLAIN, without
from sdbatch.families.picture_routes import MASK
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_PLAIN: Final = without(PLAIN, "negative_prompt")
_PARAMETERS: Final[Mapping[str, type]] = {"max_sequence_length": int}


def _routes(pipeline: str, **of_both: Any) -> dict[str, tuple[Route, ...]]:
    """Return the routes of a class that makes a picture from text alone, or from references beside it."""
    return {
        "text-to-image": (Route(pipeline=pipeline, arguments=_PLAIN, parameters=_PARAMETERS, **of_both),),
        "image-to-image": (
            Route(
                pipeline=pipeline,
                arguments={**_PLAIN, "fit": "", "images": "image"},
                images=(1, 10),
                # A list of images is one set of references for every prompt of the call.
                rows="shared",
                parameters=_PARAMETERS,
                **of_both,
            ),
        ),
    }


FAMILIES: Final = (
    Family(
        title="Flux.2 dev",
        class_name="Flux2Pipeline",
        # Its tokenizer is a PixtralProcessor, which transformers gives out beside torchvision alone.
        tasks=_routes("Flux2Pipeline", requires=("torchvision",), guidance_is_distilled=True),
        size_multiple=16,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        # Of 512 tokens, about 40 are the system message and the template around a prompt (0.42.1).
        tokens_max=472,
        tflop_reference=282.6,
        pixels_reference=1024 * 1024,
        parameters_reference=32_223_281_152,
        step_caches=frozenset({"MagCache", "TaylorSeerCache"}),
    ),
    Family(
        title="Flux.2 Klein",
        class_name="Flux2KleinPipeline",
        tasks={
            **_routes("Flux2KleinPipeline"),
            "inpainting": (
                Route(
                    pipeline="Flux2KleinInpaintPipeline",
                    arguments=without(MASKED, "negative_prompt"),
                    images=(1, 1),
                    sources=MASK,
                    parameters=_PARAMETERS,
                    defaults={"guidance_scale": 8.0, "strength": 0.8},
                ),
            ),
        },
        size_multiple=16,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=34.82,
        pixels_reference=1024 * 1024,
        parameters_reference=3_875_544_576,
        step_caches=frozenset({"MagCache", "TaylorSeerCache"}),
    ),
)

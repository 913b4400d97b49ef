"""Qwen-Image and its editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from sdbatch.families.arguments import MEGAPIXEL, PLAIN
from sdbatch.families.control_routes import joined, qwen_routes
from sdbatch.families.picture_routes import strength_routes
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route
from sdbatch.job import STEP_CACHES


class _SharedFields(TypedDict):
    """Fields that all families of this file share. See `Family`."""

    size_multiple: int
    defaults: Mapping[str, Any]
    schedulers: tuple[str, ...]
    gives_sigmas: bool
    denoiser: str
    tokens_max: int
    tflop_reference: float
    pixels_reference: int
    parameters_reference: int
    step_caches: frozenset[str]


_SHARED: Final[_SharedFields] = {
    "size_multiple": 16,
    "defaults": {**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
    "schedulers": FLOW_SCHEDULERS,
    "gives_sigmas": True,
    "denoiser": "transformer",
    "tokens_max": 512,
    "tflop_reference": 78.30,
    "pixels_reference": 1024 * 1024,
    "parameters_reference": 20_430_401_088,
    "step_caches": frozenset(STEP_CACHES),
}


def _edit_routes(pipeline: str, images: int) -> dict[str, tuple[Route, ...]]:
    return {
        "image-to-image": (
            Route(
                pipeline=pipeline,
                arguments={**PLAIN, "guidance_scale": "true_cfg_scale", "fit": "", "images": "image"},
                images=(1, images),
                rows="single",
                parameters={"max_sequence_length": int},
                requires=("torchvision",),
            ),
        ),
    }


FAMILIES: Final = (
    Family(
        title="Qwen-Image",
        class_name="QwenImagePipeline",
        tasks=joined(
            strength_routes(
                "QwenImage",
                {"max_sequence_length": int},
                {"strength": 0.6},
                {"strength": 0.6},
                guidance="true_cfg_scale",
                rows_interact=True,  # prompts are padded to the longest of the call
            ),
            qwen_routes(),
        ),
        **_SHARED,
    ),
    Family(
        title="Qwen-Image-Edit",
        class_name="QwenImageEditPipeline",
        tasks=_edit_routes("QwenImageEditPipeline", images=1),
        **_SHARED,
    ),
    Family(
        title="Qwen-Image-Edit-Plus",
        class_name="QwenImageEditPlusPipeline",
        tasks=_edit_routes("QwenImageEditPlusPipeline", images=3),
        **_SHARED,
    ),
)

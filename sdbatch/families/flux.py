"""Flux.1, its editor Kontext and its inpainter Fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from sdbatch.families.arguments import MASKED, MEGAPIXEL, PLAIN, with_references, without
from sdbatch.families.control_routes import flux_routes, joined
from sdbatch.families.picture_routes import MASK, strength_routes
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
    tokenizer: str
    tokens_max: int
    tflop_reference: float
    pixels_reference: int
    parameters_reference: int
    step_caches: frozenset[str]
    vae_is_shifted: bool


_PARAMETERS: Final[Mapping[str, type]] = {"true_cfg_scale": float, "max_sequence_length": int}

_SHARED: Final[_SharedFields] = {
    "size_multiple": 16,
    "defaults": {**MEGAPIXEL, "num_inference_steps": 28, "guidance_scale": 3.5},
    "schedulers": FLOW_SCHEDULERS,
    "gives_sigmas": True,
    "denoiser": "transformer",
    "tokenizer": "tokenizer_2",
    "tokens_max": 512,
    "tflop_reference": 74.38,
    "pixels_reference": 1024 * 1024,
    "parameters_reference": 11_901_408_320,
    "step_caches": frozenset(STEP_CACHES),
    "vae_is_shifted": True,
}

# The picture is made as large as its area says; without `_auto_resize` the source keeps its size.
_KONTEXT: Final[Mapping[str, str]] = {**PLAIN, "fit": "", "images": "image", "area": "max_area"}

FAMILIES: Final = (
    Family(
        title="Flux.1",
        class_name="FluxPipeline",
        tasks=joined(
            {
                task: tuple(map(with_references, routes))
                for task, routes in strength_routes(
                    "Flux",
                    _PARAMETERS,
                    {"guidance_scale": 7.0, "strength": 0.6},
                    {"guidance_scale": 7.0, "strength": 0.6},
                    negative_needs="true_cfg_scale",
                ).items()
            },
            flux_routes(),
        ),
        **_SHARED,
    ),
    Family(
        title="Flux.1 Kontext",
        class_name="FluxKontextPipeline",
        tasks={
            "image-to-image": (
                Route(
                    pipeline="FluxKontextPipeline",
                    arguments=_KONTEXT,
                    images=(1, 1),
                    constants={"_auto_resize": False},
                    parameters=_PARAMETERS,
                    negative_needs="true_cfg_scale",
                ),
            ),
            "inpainting": (
                Route(
                    pipeline="FluxKontextInpaintPipeline",
                    arguments={**_KONTEXT, "mask": "mask_image", "strength": "strength"},
                    images=(1, 1),
                    sources=MASK,
                    constants={"_auto_resize": False},
                    parameters=_PARAMETERS,
                    defaults={"strength": 1.0},
                    negative_needs="true_cfg_scale",
                ),
            ),
        },
        **_SHARED,
    ),
    Family(
        title="Flux.1 Fill",
        class_name="FluxFillPipeline",
        tasks={
            "inpainting": (
                Route(
                    pipeline="FluxFillPipeline",
                    arguments=without(MASKED, "negative_prompt"),
                    images=(1, 1),
                    sources=MASK,
                    parameters={"max_sequence_length": int},
                    defaults={"num_inference_steps": 50, "guidance_scale": 30.0, "strength": 1.0},
                    guidance_is_distilled=True,
                ),
            ),
        },
        **_SHARED,
    ),
)

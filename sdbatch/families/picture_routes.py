"""Routes of picture families whose pipeline classes differ by a prefix alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypedDict

from sdbatch.families.arguments import BY_STRENGTH, MASKED, PLAIN, SIZE, with_references
from sdbatch.families.table import Route

MASK: Final = frozenset({"mask"})

CONTROL: Final = frozenset({"control_image"})

_CONTROLNET: Final = {"controlnet": "ControlNetModel"}

_PARAMETERS: Final[Mapping[str, type]] = {"clip_skip": int, "eta": float}

CONTROL_PARAMETERS: Final[Mapping[str, type]] = {
    **_PARAMETERS,
    "controlnet_conditioning_scale": float,
    "guess_mode": bool,
    "control_guidance_start": float,
    "control_guidance_end": float,
}


class _SharedFields(TypedDict):
    """Fields that all routes of a family share. See `Route`."""

    parameters: Mapping[str, type]
    negative_needs: str
    rows_interact: bool
    per_row_guidance: bool


def controlled_routes(
    prefix: str, strength: float, mask_defaults: Mapping[str, float], *, empty_negative_differs: bool = False
) -> dict[str, tuple[Route, ...]]:
    """Return the routes of Stable Diffusion 1.x, 2.x and XL by task, with and without a ControlNet.

    Args:
        prefix: What every class name begins with.
        strength: Default for image-to-image.
        mask_defaults: Defaults of inpainting.
        empty_negative_differs: See `Route`.
    """
    tasks: dict[str, tuple[Route, ...]] = {
        "text-to-image": (
            Route(
                pipeline=f"{prefix}Pipeline",
                arguments=PLAIN,
                parameters={**_PARAMETERS, "guidance_rescale": float},
            ),
            Route(
                pipeline=f"{prefix}ControlNetPipeline",
                arguments={**PLAIN, "fit": "", "control_image": "image"},
                sources=CONTROL,
                parameters=CONTROL_PARAMETERS,
                components=_CONTROLNET,
            ),
        ),
        "image-to-image": (
            Route(
                pipeline=f"{prefix}Img2ImgPipeline",
                arguments=BY_STRENGTH,
                images=(1, 1),
                parameters=_PARAMETERS,
                defaults={"strength": strength},
            ),
            Route(
                pipeline=f"{prefix}ControlNetImg2ImgPipeline",
                arguments={**BY_STRENGTH, **SIZE, "control_image": "control_image"},
                images=(1, 1),
                sources=CONTROL,
                parameters=CONTROL_PARAMETERS,
                defaults={"strength": 0.8},
                components=_CONTROLNET,
            ),
        ),
        "inpainting": (
            Route(
                pipeline=f"{prefix}InpaintPipeline",
                arguments=MASKED,
                images=(1, 1),
                sources=MASK,
                parameters=_PARAMETERS,
                defaults=mask_defaults,
            ),
            Route(
                pipeline=f"{prefix}ControlNetInpaintPipeline",
                arguments={**MASKED, "control_image": "control_image"},
                images=(1, 1),
                sources=MASK | CONTROL,
                parameters=CONTROL_PARAMETERS,
                defaults={"strength": mask_defaults["strength"]},
                components=_CONTROLNET,
            ),
        ),
    }
    return {
        task: tuple(
            with_references(replace(route, per_row_guidance=True, empty_negative_differs=empty_negative_differs))
            for route in routes
        )
        for task, routes in tasks.items()
    }


def strength_routes(
    prefix: str,
    parameters: Mapping[str, type],
    image_defaults: Mapping[str, float],
    mask_defaults: Mapping[str, float],
    *,
    negative_needs: str = "",
    guidance: str = "guidance_scale",
    rows_interact: bool = False,
    per_row_guidance: bool = False,
) -> dict[str, tuple[Route, ...]]:
    """Return the routes by task of a family whose pipelines take height and width in every task.

    Args:
        prefix: What every class name begins with.
        parameters: Names and types that a row's `parameters` may hold.
        image_defaults: Defaults of image-to-image.
        mask_defaults: Defaults of inpainting.
        negative_needs: See `Route`.
        guidance: Name of the argument that takes the guidance scale.
        rows_interact: See `Route`.
        per_row_guidance: See `Route`.
    """
    shared: _SharedFields = {
        "parameters": parameters,
        "negative_needs": negative_needs,
        "rows_interact": rows_interact,
        "per_row_guidance": per_row_guidance,
    }
    guided = {"guidance_scale": guidance}
    return {
        "text-to-image": (Route(pipeline=f"{prefix}Pipeline", arguments={**PLAIN, **guided}, **shared),),
        "image-to-image": (
            Route(
                pipeline=f"{prefix}Img2ImgPipeline",
                arguments={**BY_STRENGTH, **SIZE, **guided},
                images=(1, 1),
                full_strength_ignores_source=True,
                defaults=image_defaults,
                **shared,
            ),
        ),
        "inpainting": (
            Route(
                pipeline=f"{prefix}InpaintPipeline",
                arguments={**MASKED, **guided},
                images=(1, 1),
                sources=MASK,
                defaults=mask_defaults,
                **shared,
            ),
        ),
    }

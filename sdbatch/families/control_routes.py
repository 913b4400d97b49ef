"""Routes with a ControlNet of the families whose pipelines take height and width in every task, and of Union."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import BY_STRENGTH, MASKED, PLAIN, SIZE, with_references, without
from sdbatch.families.picture_routes import CONTROL, CONTROL_PARAMETERS, MASK
from sdbatch.families.table import Route

_SCALED: Final[Mapping[str, type]] = {
    "controlnet_conditioning_scale": float,
    "control_guidance_start": float,
    "control_guidance_end": float,
}

_LED: Final[Mapping[str, str]] = {**PLAIN, "fit": "", "control_image": "control_image"}

_PAINTED: Final[Mapping[str, str]] = {**_LED, "mask": "control_mask"}
"""Arguments of a ControlNet that paints where a mask is white: its control picture is the source."""

Routes = Mapping[str, tuple[Route, ...]]


def joined(*parts: Routes) -> dict[str, tuple[Route, ...]]:
    """Return the routes of several tables by task, in order."""
    tasks = dict.fromkeys(task for part in parts for task in part)
    return {task: tuple(route for part in parts for route in part.get(task, ())) for task in tasks}


def union_routes() -> Routes:
    """Return SDXL's routes with a ControlNet of many kinds, which reads any number of pictures.

    Its attention over the pictures takes rows for pictures (0.42.1: `MultiheadAttention` without `batch_first` on
    [rows, pictures, channels]), so that a row of a call depends on the others; each is a call of its own. It takes no
    `guess_mode`: beside guidance the pipelines give it the kinds of twice the rows, which ends in an error.
    """
    components = {"controlnet": "ControlNetUnionModel"}
    parameters: dict[str, type] = {**CONTROL_PARAMETERS, "control_mode": list}
    del parameters["guess_mode"]
    routes = {
        "text-to-image": Route(
            pipeline="StableDiffusionXLControlNetUnionPipeline",
            arguments=_LED,
            sources=CONTROL,
            parameters=parameters,
            components=components,
            nets="union",
        ),
        "image-to-image": Route(
            pipeline="StableDiffusionXLControlNetUnionImg2ImgPipeline",
            arguments={**BY_STRENGTH, **SIZE, "control_image": "control_image"},
            images=(1, 1),
            sources=CONTROL,
            parameters=parameters,
            defaults={"strength": 0.8},
            components=components,
            nets="union",
        ),
        "inpainting": Route(
            pipeline="StableDiffusionXLControlNetUnionInpaintPipeline",
            arguments={**MASKED, "control_image": "control_image"},
            images=(1, 1),
            sources=MASK | CONTROL,
            parameters=parameters,
            defaults={"strength": 0.9999},
            components=components,
            nets="union",
        ),
    }
    return {
        task: (with_references(replace(route, rows="single", empty_negative_differs=True)),)
        for task, route in routes.items()
    }


def flux_routes() -> Routes:
    """Return Flux.1's routes with ControlNets; those from a picture read no negative prompt."""
    parameters: dict[str, type] = {**_SCALED, "control_mode": int, "max_sequence_length": int}
    components = {"controlnet": "FluxControlNetModel"}
    unread = ("negative_prompt",)
    return {
        "text-to-image": (
            with_references(
                Route(
                    pipeline="FluxControlNetPipeline",
                    arguments=_LED,
                    sources=CONTROL,
                    parameters={**parameters, "true_cfg_scale": float},
                    defaults={"guidance_scale": 7.0},
                    negative_needs="true_cfg_scale",
                    components=components,
                )
            ),
        ),
        "image-to-image": (
            Route(
                pipeline="FluxControlNetImg2ImgPipeline",
                arguments=without({**BY_STRENGTH, **SIZE, "control_image": "control_image"}, *unread),
                images=(1, 1),
                sources=CONTROL,
                full_strength_ignores_source=True,
                parameters=parameters,
                defaults={"guidance_scale": 7.0, "strength": 0.6},
                guidance_is_distilled=True,
                components=components,
            ),
        ),
        "inpainting": (
            Route(
                pipeline="FluxControlNetInpaintPipeline",
                arguments=without({**MASKED, "control_image": "control_image"}, *unread),
                images=(1, 1),
                sources=MASK | CONTROL,
                parameters=parameters,
                defaults={"guidance_scale": 7.0, "strength": 0.6},
                guidance_is_distilled=True,
                components=components,
            ),
        ),
    }


def sd3_routes() -> Routes:
    """Return Stable Diffusion 3's routes with ControlNets.

    The pipelines draw from torch's own generator as they encode control pictures (0.42.1), so that a row of a call
    would depend on the others; one row a call draws from its own seed.
    """
    parameters: dict[str, type] = {**_SCALED, "clip_skip": int, "max_sequence_length": int}
    components = {"controlnet": "SD3ControlNetModel"}
    return {
        "text-to-image": (
            Route(
                pipeline="StableDiffusion3ControlNetPipeline",
                arguments=_LED,
                sources=CONTROL,
                rows="single",
                parameters=parameters,
                components=components,
            ),
        ),
        "inpainting": (
            Route(
                pipeline="StableDiffusion3ControlNetInpaintingPipeline",
                arguments=_PAINTED,
                sources=MASK | CONTROL,
                rows="single",
                parameters=parameters,
                components=components,
                nets="one",
                net_reads_mask=True,
            ),
        ),
    }


def qwen_routes() -> Routes:
    """Return Qwen-Image's routes with a ControlNet, of which one reads several pictures, and another one a mask."""
    parameters: dict[str, type] = {**_SCALED, "max_sequence_length": int}
    components = {"controlnet": "QwenImageControlNetModel"}
    return {
        "text-to-image": (
            Route(
                pipeline="QwenImageControlNetPipeline",
                arguments={**_LED, "guidance_scale": "true_cfg_scale"},
                sources=CONTROL,
                parameters=parameters,
                components=components,
                rows_interact=True,  # prompts are padded to the longest of the call
                nets="union",
            ),
        ),
        "inpainting": (
            Route(
                pipeline="QwenImageControlNetInpaintPipeline",
                arguments={**_PAINTED, "guidance_scale": "true_cfg_scale"},
                sources=MASK | CONTROL,
                # It draws from torch's own generator as it encodes the picture, as Stable Diffusion 3's do.
                rows="single",
                parameters=parameters,
                components=components,
                nets="one",
                net_reads_mask=True,
            ),
        ),
    }


def z_image_routes() -> Routes:
    """Return Z-Image's routes with a ControlNet; the one that paints a mask reads the source by it as well."""
    parameters: dict[str, type] = {
        "controlnet_conditioning_scale": float,
        "cfg_normalization": bool,
        "cfg_truncation": float,
        "max_sequence_length": int,
    }
    components = {"controlnet": "ZImageControlNetModel"}
    return {
        "text-to-image": (
            Route(
                pipeline="ZImageControlNetPipeline",
                arguments=_LED,
                sources=CONTROL,
                parameters=parameters,
                components=components,
                nets="one",
            ),
        ),
        "inpainting": (
            Route(
                pipeline="ZImageControlNetInpaintPipeline",
                arguments=without({**MASKED, "control_image": "control_image"}, "strength"),
                images=(1, 1),
                sources=MASK | CONTROL,
                parameters=parameters,
                components=components,
                nets="one",
            ),
        ),
    }

"""Routes that Wan 2.1 and 2.2 share: the same pipeline classes, told apart by other entries of their folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sdbatch.families.arguments import CLIP, FROM_CLIP, FROM_IMAGE, KEYFRAMES_MAX, without
from sdbatch.families.schedulers import WAN_SCHEDULERS
from sdbatch.families.table import Family, Route

PARAMETERS: Final[Mapping[str, type]] = {"max_sequence_length": int}

TWO_STAGES: Final[Mapping[str, type]] = {**PARAMETERS, "guidance_scale_2": float}

_CONTROLLED: Final[Mapping[str, type]] = {"conditioning_scale": float}


def text_routes(arguments: Mapping[str, str] = CLIP, parameters: Mapping[str, type] = PARAMETERS) -> tuple[Route, ...]:
    """Return the routes of text-to-video."""
    return (Route(pipeline="WanPipeline", arguments=arguments, parameters=parameters, per_row_guidance=True),)


def image_routes(
    images: tuple[int, int],
    *,
    is_chained: bool,
    arguments: Mapping[str, str] = FROM_IMAGE,
    parameters: Mapping[str, type] = PARAMETERS,
) -> tuple[Route, ...]:
    """Return the routes of image-to-video: the pipeline takes a list of prompts, but one image for all of them."""
    return (
        Route(
            pipeline="WanImageToVideoPipeline",
            arguments=arguments,
            images=images,
            rows="shared",
            keyframes="chained" if is_chained else "",
            parameters=parameters,
        ),
    )


def vace_routes(parameters: Mapping[str, type]) -> Mapping[str, tuple[Route, ...]]:
    """Return VACE's routes: one row a call, and a source clip as what guides it (depth, pose, grey, ...)."""
    controlled = {**parameters, **_CONTROLLED}
    return {
        "text-to-video": (
            Route(
                pipeline="WanVACEPipeline",
                arguments=CLIP,
                rows="single",
                parameters=parameters,
            ),
        ),
        "image-to-video": (
            Route(
                pipeline="WanVACEPipeline",
                arguments={**FROM_IMAGE, "images": "video"},
                images=(1, KEYFRAMES_MAX),
                rows="single",
                keyframes="any",
                adapter="vace-keyframes",
                parameters=controlled,
            ),
        ),
        "video-to-video": (
            Route(
                pipeline="WanVACEPipeline",
                arguments=without({**FROM_CLIP, "num_frames": "num_frames"}, "strength"),
                sources=frozenset({"video"}),
                rows="single",
                parameters=controlled,
            ),
        ),
    }


def wan_family(
    title: str,
    class_name: str,
    tasks: Mapping[str, tuple[Route, ...]],
    *,
    when: Mapping[str, Any] | None = None,
    is_two_stage: bool = False,
    size_multiple: int = 16,
    defaults: Mapping[str, Any] | None = None,
    tflop_reference: float = 1678.0,
    parameters_reference: int = 14_288_491_584,
) -> Family:
    """Return a family with the fields that all Wan models share.

    Args:
        title: See `Family`.
        class_name: See `Family`.
        tasks: See `Family`.
        when: See `Family`.
        is_two_stage: Whether a second transformer makes the later steps.
        size_multiple: See `Family`.
        defaults: They go before the defaults of all Wan models.
        tflop_reference: See `Family`.
        parameters_reference: See `Family`.
    """
    is_plain = not is_two_stage and class_name != "WanVACEPipeline"
    return Family(
        title=title,
        class_name=class_name,
        when=when or {},
        tasks=tasks,
        size_multiple=size_multiple,
        frame_multiple=4,
        defaults={
            "height": 480,
            "width": 832,
            "num_frames": 81,
            "fps": 16.0,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            **(defaults or {}),
        },
        schedulers=WAN_SCHEDULERS,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=tflop_reference,
        pixels_reference=480 * 832 * 81,
        parameters_reference=parameters_reference,
        # Each of two denoisers would count its own steps only; the caches do not know VACE's further blocks.
        step_caches=frozenset({"FirstBlockCache", "MagCache"} if is_plain else ()),
        cfg_layout="" if is_two_stage else "passes",
    )

"""Wan 2.1 and 2.2: one class name stands for several models, told apart by what else their folders say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sdbatch.families.motion import CLIP, FROM_CLIP, FROM_IMAGE, KEYFRAMES_MAX
from sdbatch.families.table import Family, Route

WAN_SCHEDULERS: Final = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Those that read the folder's `flow_shift`; FlowMatchEuler would silently take its own."""

_PARAMETERS: Final[Mapping[str, type]] = {"max_sequence_length": int}
_TWO_STAGES: Final[Mapping[str, type]] = {**_PARAMETERS, "guidance_scale_2": float}
_CONTROLLED: Final[Mapping[str, type]] = {"conditioning_scale": float}
_SECOND: Final = {"model_index.json transformer_2": ["diffusers", "WanTransformer3DModel"]}
_SECOND_VACE: Final = {"model_index.json transformer_2": ["diffusers", "WanVACETransformer3DModel"]}


def _without_loras(arguments: Mapping[str, str]) -> dict[str, str]:
    """Leave LoRAs out: the loader lays them over the first of two denoisers alone."""
    return {column: name for column, name in arguments.items() if column != "loras"}


def _text(arguments: Mapping[str, str] = CLIP, parameters: Mapping[str, type] = _PARAMETERS) -> tuple[Route, ...]:
    return (Route(pipeline="WanPipeline", arguments=arguments, parameters=parameters, per_row_guidance=True),)


def _image(
    images: tuple[int, int],
    *,
    is_chained: bool,
    arguments: Mapping[str, str] = FROM_IMAGE,
    parameters: Mapping[str, type] = _PARAMETERS,
) -> tuple[Route, ...]:
    """Return the way from images: the pipeline takes one list of prompts, but one image for all of them."""
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


def _vace(*, loras: bool, parameters: Mapping[str, type]) -> Mapping[str, tuple[Route, ...]]:
    """Return VACE's ways; it takes one row a call, and a clip as what guides it (depth, pose, grey...)."""
    picked: Callable[[Mapping[str, str]], dict[str, str]] = dict if loras else _without_loras
    controlled = {**parameters, **_CONTROLLED}
    whole = {column: name for column, name in FROM_CLIP.items() if column != "strength"}
    return {
        "text-to-video": (
            Route(pipeline="WanVACEPipeline", arguments=picked(CLIP), rows="single", parameters=parameters),
        ),
        "image-to-video": (
            Route(
                pipeline="WanVACEPipeline",
                arguments=picked({**FROM_IMAGE, "images": "video"}),
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
                arguments=picked({**whole, "num_frames": "num_frames"}),
                sources=frozenset({"video"}),
                rows="single",
                parameters=controlled,
            ),
        ),
    }


def _wan(
    title: str,
    class_name: str,
    tasks: Mapping[str, tuple[Route, ...]],
    *,
    when: Mapping[str, Any] | None = None,
    size_multiple: int = 16,
    defaults: Mapping[str, Any] | None = None,
    tflop_reference: float = 1678.0,
    parameters_reference: int = 14_288_491_584,
) -> Family:
    is_two_stage = when in (_SECOND, _SECOND_VACE)
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
        # Two denoisers would count their own steps only; VACE's further blocks are unknown to the caches.
        step_caches=frozenset({"FirstBlockCache", "MagCache"} if is_plain else ()),
        cfg_layout="" if is_two_stage else "passes",
    )


WAN_FAMILIES: Final = (
    _wan(
        "Wan 2.2 TI2V",
        "WanPipeline",
        # The pipeline takes a last image and ignores it where time steps are expanded.
        {"text-to-video": _text(), "image-to-video": _image((1, 1), is_chained=False)},
        when={"model_index.json expand_timesteps": True},
        size_multiple=32,
        defaults={"height": 704, "width": 1280, "num_frames": 121, "fps": 24.0},
        tflop_reference=153.4,
        parameters_reference=4_999_787_712,
    ),
    _wan(
        "Wan 2.2 T2V A14B",
        "WanPipeline",
        {"text-to-video": _text(_without_loras(CLIP), _TWO_STAGES)},
        when=_SECOND,
        defaults={"num_inference_steps": 40, "guidance_scale": 4.0},
    ),
    _wan(
        "Wan 2.1 T2V",
        "WanPipeline",
        {
            "text-to-video": _text(),
            "video-to-video": (
                Route(
                    pipeline="WanVideoToVideoPipeline",
                    arguments=FROM_CLIP,
                    full_strength_ignores_source=True,
                    sources=frozenset({"video"}),
                    parameters=_PARAMETERS,
                    defaults={"strength": 0.8},
                ),
            ),
        },
    ),
    _wan(
        "Wan 2.2 I2V A14B",
        "WanImageToVideoPipeline",
        {
            "image-to-video": _image(
                (1, KEYFRAMES_MAX), is_chained=True, arguments=_without_loras(FROM_IMAGE), parameters=_TWO_STAGES
            )
        },
        when=_SECOND,
        defaults={"num_inference_steps": 40, "guidance_scale": 3.5},
    ),
    _wan(
        "Wan 2.1 FLF2V",
        "WanImageToVideoPipeline",
        {"image-to-video": _image((2, KEYFRAMES_MAX), is_chained=True)},
        when={"transformer/config.json pos_embed_seq_len": ...},
        tflop_reference=1686.0,
        parameters_reference=16_394_878_784,
    ),
    _wan(
        "Wan 2.1 I2V",
        "WanImageToVideoPipeline",
        {"image-to-video": _image((1, 1), is_chained=False)},
        tflop_reference=1686.0,
        parameters_reference=16_394_878_784,
    ),
    _wan(
        "Wan 2.2 VACE A14B",
        "WanVACEPipeline",
        _vace(loras=False, parameters=_TWO_STAGES),
        when=_SECOND_VACE,
        tflop_reference=2030.0,
        parameters_reference=17_337_592_896,
    ),
    _wan(
        "Wan 2.1 VACE",
        "WanVACEPipeline",
        _vace(loras=True, parameters=_PARAMETERS),
        tflop_reference=2030.0,
        parameters_reference=17_337_592_896,
    ),
)
"""Of one class, the more particular first."""

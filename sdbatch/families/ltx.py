"""LTX-Video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import CLIP, FROM_CLIP, FROM_IMAGE, KEYFRAMES_MAX
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_PARAMETERS: Final[Mapping[str, type]] = {
    "guidance_rescale": float,
    "decode_timestep": float,
    "decode_noise_scale": float,
    "max_sequence_length": int,
}

_CONDITION_PARAMETERS: Final[Mapping[str, type]] = {**_PARAMETERS, "image_cond_noise_scale": float}

_FRAME_RATE: Final = {"fps": "frame_rate"}

_LTX: Final = Family(
    title="LTX-Video",
    class_name="LTXPipeline",
    tasks={
        "text-to-video": (
            Route(
                pipeline="LTXPipeline",
                arguments={**CLIP, **_FRAME_RATE},
                parameters=_PARAMETERS,
                per_row_guidance=True,
            ),
        ),
        "image-to-video": (
            Route(
                pipeline="LTXImageToVideoPipeline",
                arguments={**FROM_IMAGE, **_FRAME_RATE},
                images=(1, 1),
                # From 0.9.1 on the VAE is told a time step, and the noise for it takes one generator (0.42.1).
                rows="single",
                parameters=_PARAMETERS,
            ),
            Route(
                pipeline="LTXConditionPipeline",
                arguments={**FROM_IMAGE, **_FRAME_RATE, "images": "conditions"},
                images=(1, KEYFRAMES_MAX),
                rows="single",
                keyframes="any",
                adapter="ltx-conditions",
                parameters=_CONDITION_PARAMETERS,
                tokens_max=256,
            ),
        ),
        "video-to-video": (
            Route(
                pipeline="LTXConditionPipeline",
                arguments={
                    **FROM_CLIP,
                    **_FRAME_RATE,
                    "num_frames": "num_frames",
                    "video": "latents",
                    "strength": "denoise_strength",
                },
                sources=frozenset({"video"}),
                full_strength_ignores_source=True,
                rows="single",  # of several rows it would spread the noise level along the width
                adapter="ltx-latents",
                parameters=_PARAMETERS,
                defaults={"strength": 0.8},
                tokens_max=256,
            ),
        ),
    },
    size_multiple=32,
    frame_multiple=8,
    defaults={
        "height": 512,
        "width": 704,
        "num_frames": 161,
        "fps": 25.0,
        "num_inference_steps": 50,
        "guidance_scale": 3.0,
    },
    schedulers=FLOW_SCHEDULERS,
    gives_sigmas=True,
    denoiser="transformer",
    tokens_max=128,
    tflop_reference=37.1,
    pixels_reference=512 * 704 * 161,
    parameters_reference=1_923_385_472,
    step_caches=frozenset({"FirstBlockCache", "MagCache"}),
    cfg_layout="halves",
)

FAMILIES: Final = (
    _LTX,
    replace(_LTX, title="LTX-Video 0.9.5 and later", class_name="LTXConditionPipeline"),
)

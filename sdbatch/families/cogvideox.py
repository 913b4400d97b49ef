"""CogVideoX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import CLIP, FROM_CLIP, FROM_IMAGE
from sdbatch.families.schedulers import COGVIDEOX_SCHEDULERS
from sdbatch.families.table import Family, Route

_PARAMETERS: Final[Mapping[str, type]] = {"use_dynamic_cfg": bool, "eta": float}

_TEXT: Final = Family(
    title="CogVideoX",
    class_name="CogVideoXPipeline",
    tasks={
        "text-to-video": (
            Route(pipeline="CogVideoXPipeline", arguments=CLIP, parameters=_PARAMETERS, per_row_guidance=True),
        ),
        "video-to-video": (
            Route(
                pipeline="CogVideoXVideoToVideoPipeline",
                arguments=FROM_CLIP,
                full_strength_ignores_source=True,
                sources=frozenset({"video"}),
                # CogVideoX 1.5 takes latent frames in pairs; of 8 k + 1 frames there is one over, which it refuses.
                unless={"transformer/config.json patch_size_t": ...},
                parameters=_PARAMETERS,
                defaults={"strength": 0.8},
            ),
        ),
    },
    size_multiple=16,
    # Not 4: the decoder takes latent frames in pairs after the first, so 13 asked for come out as 16.
    frame_multiple=8,
    defaults={
        "height": 480,
        "width": 720,
        "num_frames": 49,
        "fps": 8.0,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    schedulers=COGVIDEOX_SCHEDULERS,
    denoiser="transformer",
    tokens_max=226,
    tflop_reference=120.0,
    pixels_reference=480 * 720 * 49,
    parameters_reference=1_693_783_872,
    step_caches=frozenset({"FirstBlockCache", "MagCache"}),
    cfg_layout="halves",
    untiled_max=13_000_000,  # the default clip, of 17 million, would take 15 GB to decode whole
)

_IMAGE: Final = replace(
    _TEXT,
    title="CogVideoX I2V",
    class_name="CogVideoXImageToVideoPipeline",
    tasks={
        "image-to-video": (
            Route(
                pipeline="CogVideoXImageToVideoPipeline",
                arguments=FROM_IMAGE,
                images=(1, 1),
                parameters=_PARAMETERS,
            ),
        ),
    },
)

FAMILIES: Final = (_TEXT, _IMAGE)

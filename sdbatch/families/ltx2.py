"""LTX-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.families.arguments import CLIP, FROM_IMAGE, KEYFRAMES_MAX
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_PARAMETERS: Final[Mapping[str, type]] = {
    "stg_scale": float,
    "modality_scale": float,
    "guidance_rescale": float,
    "audio_guidance_scale": float,
    "audio_stg_scale": float,
    "audio_modality_scale": float,
    "audio_guidance_rescale": float,
    "spatio_temporal_guidance_blocks": list,
    "motion_speed": float,
    "decode_timestep": float,
    "decode_noise_scale": float,
    "max_sequence_length": int,
}

_FRAME_RATE: Final = {"fps": "frame_rate"}

FAMILIES: Final = (
    Family(
        title="LTX-2",
        class_name="LTX2Pipeline",
        tasks={
            "text-to-video": (
                Route(pipeline="LTX2Pipeline", arguments={**CLIP, **_FRAME_RATE}, parameters=_PARAMETERS),
            ),
            "image-to-video": (
                Route(
                    pipeline="LTX2ConditionPipeline",
                    arguments={**FROM_IMAGE, **_FRAME_RATE, "images": "conditions"},
                    images=(1, KEYFRAMES_MAX),
                    rows="shared",
                    keyframes="any",
                    adapter="ltx2-conditions",
                    parameters=_PARAMETERS,
                    requires=("av",),
                ),
            ),
        },
        size_multiple=32,
        frame_multiple=8,
        defaults={
            "height": 512,
            "width": 768,
            "num_frames": 121,
            "fps": 24.0,
            "num_inference_steps": 30,
            "guidance_scale": 3.0,
        },
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        tokens_max=1024,
        tflop_reference=198.8,
        pixels_reference=512 * 768 * 121,
        parameters_reference=18_876_174_592,
        step_caches=frozenset({"TaylorSeerCache"}),
    ),
)

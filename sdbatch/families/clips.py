"""Families that make clips, Wan's apart (`wan.py`).

column --> pipeline argument, per task; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sdbatch.families.images import FLOW_SCHEDULERS
from sdbatch.families.motion import ANIMATED, CLIP, FROM_CLIP, FROM_IMAGE, KEYFRAMES_MAX, MOTION_SCHEDULERS, SPARSE
from sdbatch.families.table import Family, Route
from sdbatch.families.wan import WAN_FAMILIES

EULER_SCHEDULERS: Final = ("EulerDiscreteScheduler",)
"""For Stable Video Diffusion, whose noise levels are continuous."""

COGVIDEOX_SCHEDULERS: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")

_LTX_PARAMETERS: Final[Mapping[str, type]] = {
    "guidance_rescale": float,
    "decode_timestep": float,
    "decode_noise_scale": float,
    "max_sequence_length": int,
}
_LTX_CONDITION_PARAMETERS: Final[Mapping[str, type]] = {**_LTX_PARAMETERS, "image_cond_noise_scale": float}
_FRAME_RATE: Final = {"fps": "frame_rate"}

_LTX = Family(
    title="LTX-Video",
    class_name="LTXPipeline",
    tasks={
        "text-to-video": (
            Route(
                pipeline="LTXPipeline",
                arguments={**CLIP, **_FRAME_RATE},
                parameters=_LTX_PARAMETERS,
                per_row_guidance=True,
            ),
        ),
        "image-to-video": (
            Route(
                pipeline="LTXImageToVideoPipeline",
                arguments={**FROM_IMAGE, **_FRAME_RATE},
                images=(1, 1),
                parameters=_LTX_PARAMETERS,
                per_row_guidance=True,
            ),
            Route(
                pipeline="LTXConditionPipeline",
                arguments={**FROM_IMAGE, **_FRAME_RATE, "images": "conditions"},
                images=(1, KEYFRAMES_MAX),
                rows="single",
                keyframes="any",
                adapter="ltx-conditions",
                parameters=_LTX_CONDITION_PARAMETERS,
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
                parameters=_LTX_PARAMETERS,
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
    denoiser="transformer",
    tokens_max=128,
    tflop_reference=37.1,
    pixels_reference=512 * 704 * 161,
    parameters_reference=1_923_385_472,
    step_caches=frozenset({"FirstBlockCache", "MagCache"}),
    cfg_layout="halves",
)

_LTX2_PARAMETERS: Final[Mapping[str, type]] = {
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

_LTX2 = Family(
    title="LTX-2",
    class_name="LTX2Pipeline",
    tasks={
        "text-to-video": (
            Route(pipeline="LTX2Pipeline", arguments={**CLIP, **_FRAME_RATE}, parameters=_LTX2_PARAMETERS),
        ),
        "image-to-video": (
            Route(
                pipeline="LTX2ConditionPipeline",
                arguments={**FROM_IMAGE, **_FRAME_RATE, "images": "conditions"},
                images=(1, KEYFRAMES_MAX),
                rows="shared",
                keyframes="any",
                adapter="ltx2-conditions",
                parameters=_LTX2_PARAMETERS,
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
    denoiser="transformer",
    tokens_max=1024,
    tflop_reference=198.8,
    pixels_reference=512 * 768 * 121,
    parameters_reference=18_876_174_592,
    step_caches=frozenset({"TaylorSeerCache"}),
)

_COGVIDEOX_PARAMETERS: Final[Mapping[str, type]] = {"use_dynamic_cfg": bool, "eta": float}

_COGVIDEOX = Family(
    title="CogVideoX",
    class_name="CogVideoXPipeline",
    tasks={
        "text-to-video": (
            Route(
                pipeline="CogVideoXPipeline", arguments=CLIP, parameters=_COGVIDEOX_PARAMETERS, per_row_guidance=True
            ),
        ),
        "video-to-video": (
            Route(
                pipeline="CogVideoXVideoToVideoPipeline",
                arguments=FROM_CLIP,
                full_strength_ignores_source=True,
                sources=frozenset({"video"}),
                parameters=_COGVIDEOX_PARAMETERS,
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
)

_COGVIDEOX_I2V = replace(
    _COGVIDEOX,
    title="CogVideoX I2V",
    class_name="CogVideoXImageToVideoPipeline",
    tasks={
        "image-to-video": (
            Route(
                pipeline="CogVideoXImageToVideoPipeline",
                arguments=FROM_IMAGE,
                images=(1, 1),
                parameters=_COGVIDEOX_PARAMETERS,
            ),
        ),
    },
)

# No LoRA loader, and its guidance is a component, not an argument.
_HUNYUAN_CLIP = {column: name for column, name in {**CLIP, "guidance_scale": ""}.items() if column != "loras"}

_HUNYUAN = Family(
    title="HunyuanVideo 1.5",
    class_name="HunyuanVideo15Pipeline",
    tasks={
        "text-to-video": (Route(pipeline="HunyuanVideo15Pipeline", arguments=_HUNYUAN_CLIP, adapter="hunyuan"),),
    },
    size_multiple=16,
    frame_multiple=4,
    defaults={
        "height": 480,
        "width": 848,
        "num_frames": 121,
        "fps": 24.0,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    schedulers=FLOW_SCHEDULERS,
    denoiser="transformer",
    tokens_max=1000,
    # By formula, as its masks have no values on the meta device: half of the 8.3e9 weights see a token of the clip,
    # half one of the text, and 54 layers attend over all 51,275 tokens.
    tflop_reference=1590.0,
    pixels_reference=480 * 848 * 121,
    parameters_reference=8_332_000_000,
    step_caches=frozenset({"TaylorSeerCache"}),
)

_HUNYUAN_I2V = replace(
    _HUNYUAN,
    title="HunyuanVideo 1.5 I2V",
    class_name="HunyuanVideo15ImageToVideoPipeline",
    tasks={
        "image-to-video": (
            Route(
                pipeline="HunyuanVideo15ImageToVideoPipeline",
                arguments={**_HUNYUAN_CLIP, "height": "", "width": "", "fit": "", "images": "image"},
                images=(1, 1),
                rows="shared",
                adapter="hunyuan",
            ),
        ),
    },
)

_SVD = Family(
    title="Stable Video Diffusion",
    class_name="StableVideoDiffusionPipeline",
    tasks={
        "image-to-video": (
            Route(
                pipeline="StableVideoDiffusionPipeline",
                arguments={
                    "images": "image",
                    "fit": "",
                    "height": "height",
                    "width": "width",
                    "num_frames": "num_frames",
                    "duration_s": "",
                    "fps": "fps",
                    "num_inference_steps": "num_inference_steps",
                    "guidance_scale": "max_guidance_scale",
                    "scheduler": "",
                },
                images=(1, 1),
                parameters={
                    "min_guidance_scale": float,
                    "motion_bucket_id": int,
                    "noise_aug_strength": float,
                    "decode_chunk_size": int,
                },
            ),
        ),
    },
    size_multiple=64,
    frame_multiple=1,
    defaults={
        "height": 576,
        "width": 1024,
        "num_frames": 25,
        "fps": 7.0,
        "num_inference_steps": 25,
        "guidance_scale": 3.0,
    },
    schedulers=EULER_SCHEDULERS,
    denoiser="unet",
    tflop_reference=79.9,
    pixels_reference=576 * 1024 * 25,
    parameters_reference=1_524_623_082,
)

_ANIMATEDIFF = Family(
    title="AnimateDiff",
    class_name="AnimateDiffPipeline",
    tasks={task: ANIMATED[task] for task in ("text-to-video", "video-to-video")},
    size_multiple=8,
    frame_multiple=1,
    frames_max=32,
    defaults={"num_frames": 16, "fps": 8.0, "num_inference_steps": 50, "guidance_scale": 7.5},
    schedulers=MOTION_SCHEDULERS,
    denoiser="unet",
    tflop_reference=17.7,
    pixels_reference=512 * 512 * 16,
    parameters_reference=1_312_730_244,
)

CLIP_FAMILIES: Final = (
    _ANIMATEDIFF,
    replace(
        _ANIMATEDIFF,
        title="AnimateDiff SparseCtrl",
        class_name="AnimateDiffSparseControlNetPipeline",
        tasks={**_ANIMATEDIFF.tasks, "image-to-video": (SPARSE,)},
    ),
    _SVD,
    *WAN_FAMILIES,
    _LTX,
    replace(_LTX, title="LTX-Video 0.9.5 and later", class_name="LTXConditionPipeline"),
    _LTX2,
    _COGVIDEOX,
    _COGVIDEOX_I2V,
    _HUNYUAN,
    _HUNYUAN_I2V,
)

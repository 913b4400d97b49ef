"""Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

from typing import Final

from sdbatch.families.motion_routes import animated_routes, sparse_route
from sdbatch.families.picture_routes import controlled_routes
from sdbatch.families.schedulers import EPSILON_SCHEDULERS
from sdbatch.families.table import Family

_MOTION: Final = {"motion_adapter": "MotionAdapter"}

FAMILIES: Final = (
    Family(
        title="Stable Diffusion 1.x/2.x",
        class_name="StableDiffusionPipeline",
        tasks={
            **controlled_routes("StableDiffusion", 0.8, {"strength": 1.0}),
            **animated_routes(_MOTION, "motion-schedule"),
            "image-to-video": (sparse_route({**_MOTION, "controlnet": "SparseControlNetModel"}, "motion-schedule"),),
        },
        size_multiple=8,
        frame_multiple=1,
        frames_max=32,
        defaults={"num_inference_steps": 50, "guidance_scale": 7.5, "num_frames": 16, "fps": 8.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=0.803,
        pixels_reference=512 * 512,
        parameters_reference=859_520_964,
        cfg_layout="halves",
        takes_encoded_prompts=True,
    ),
)

"""Stable Video Diffusion."""

from __future__ import annotations

from typing import Final

from sdbatch.families.schedulers import EULER_SCHEDULERS
from sdbatch.families.table import Family, Route

FAMILIES: Final = (
    Family(
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
        vae_tiles=False,
    ),
)

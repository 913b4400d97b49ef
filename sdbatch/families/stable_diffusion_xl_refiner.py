"""The refiner of Stable Diffusion XL, which makes the last steps of a picture anew."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import BY_STRENGTH
from sdbatch.families.schedulers import EPSILON_SCHEDULERS
from sdbatch.families.table import Family, Route

FAMILIES: Final = (
    Family(
        title="Stable Diffusion XL Refiner",
        class_name="StableDiffusionXLImg2ImgPipeline",
        # The pipeline reads the scores only where its folder says so (0.42.1).
        when={"model_index.json requires_aesthetics_score": True},
        # The pipeline would put another tokenizer, or text encoder, before the refiner's own.
        unless={"model_index.json text_encoder": ..., "model_index.json tokenizer": ...},
        tasks={
            "image-to-image": (
                Route(
                    pipeline="StableDiffusionXLImg2ImgPipeline",
                    arguments=BY_STRENGTH,
                    images=(1, 1),
                    parameters={
                        "aesthetic_score": float,
                        "negative_aesthetic_score": float,
                        "clip_skip": int,
                        "eta": float,
                    },
                    defaults={"strength": 0.3},
                    per_row_guidance=True,
                    # As a folder says: zeros stand for no negative prompt in some, an empty text in the published one.
                    empty_negative_differs=True,
                ),
            ),
        },
        size_multiple=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tokenizer="tokenizer_2",
        tflop_reference=7.286,
        pixels_reference=1024 * 1024,
        parameters_reference=2_259_526_660,
        cfg_layout="halves",
        takes_encoded_prompts=True,
    ),
)

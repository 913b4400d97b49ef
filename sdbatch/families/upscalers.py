"""Models that enlarge a picture: Stable Diffusion's x4 upscaler, and the x2 one of latents."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import SETTLED, STEPS, TEXT
from sdbatch.families.schedulers import EPSILON_SCHEDULERS, EULER_SCHEDULERS
from sdbatch.families.table import Family, Route

_ARGUMENTS: Final = {**TEXT, **STEPS, **SETTLED, "height": "", "width": "", "images": "image"}
"""Height and width follow from the source; those that a row says are compared with it."""

FAMILIES: Final = (
    Family(
        title="Stable Diffusion x4 Upscaler",
        class_name="StableDiffusionUpscalePipeline",
        tasks={
            "image-to-image": (
                Route(
                    pipeline="StableDiffusionUpscalePipeline",
                    arguments=_ARGUMENTS,
                    images=(1, 1),
                    # Sources are of any size, and a call takes one.
                    rows="single",
                    enlarges=4,
                    tile=256,
                    padded_to=8,
                    parameters={"noise_level": int, "eta": float, "clip_skip": int},
                ),
            ),
        },
        size_multiple=4,
        defaults={"height": 512, "width": 512, "num_inference_steps": 75, "guidance_scale": 9.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=1.131,
        pixels_reference=512 * 512,
        parameters_reference=473_398_020,
    ),
    Family(
        title="Stable Diffusion Latent Upscaler",
        class_name="StableDiffusionLatentUpscalePipeline",
        tasks={
            "image-to-image": (
                Route(
                    pipeline="StableDiffusionLatentUpscalePipeline",
                    arguments={name: value for name, value in _ARGUMENTS.items() if name != "loras"},
                    images=(1, 1),
                    rows="single",
                    enlarges=2,
                    tile=256,
                    padded_to=64,
                ),
            ),
        },
        size_multiple=2,
        defaults={"height": 1024, "width": 1024, "num_inference_steps": 75, "guidance_scale": 9.0},
        schedulers=EULER_SCHEDULERS,
        denoiser="unet",
        tflop_reference=1.281,
        pixels_reference=1024 * 1024,
        parameters_reference=372_560_645,
    ),
)

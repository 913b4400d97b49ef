"""Families that make pictures.

column --> pipeline argument, per task; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.families.table import Family, TaskRow

EPSILON_SCHEDULERS: Final = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""For models that predict noise or velocity. LMSDiscrete wants scipy, DPMSolverSDE torchsde: left out."""

FLOW_SCHEDULERS: Final = ("FlowMatchEulerDiscreteScheduler",)
"""For models that predict a flow."""

SETTLED: Final = {"scheduler": "", "loras": ""}
TEXT: Final = {"prompt": "prompt", "negative_prompt": "negative_prompt"}
SIZE: Final = {"height": "height", "width": "width"}
STEPS: Final = {"num_inference_steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
PLAIN: Final[Mapping[str, str]] = {**TEXT, **SIZE, **STEPS, **SETTLED}
"""A picture from text."""

SIZED_BY_SOURCE: Final[Mapping[str, str]] = {**PLAIN, "height": "", "width": "", "fit": ""}
BY_STRENGTH: Final[Mapping[str, str]] = {**SIZED_BY_SOURCE, "images": "image", "strength": "strength"}
"""A picture from a picture of the same size."""

MASKED: Final[Mapping[str, str]] = {
    **PLAIN,
    "fit": "",
    "images": "image",
    "mask": "mask_image",
    "strength": "strength",
}
"""A picture made anew where a mask is white."""

_CONTROL = frozenset({"control_image"})
_CONTROLNET: Final = {"controlnet": "ControlNetModel"}
_SD_PARAMETERS: Final[Mapping[str, type]] = {"clip_skip": int, "eta": float}
_CONTROL_PARAMETERS: Final[Mapping[str, type]] = {
    **_SD_PARAMETERS,
    "controlnet_conditioning_scale": float,
    "guess_mode": bool,
    "control_guidance_start": float,
    "control_guidance_end": float,
}


def _stable_diffusion(prefix: str, strength: float, masked: Mapping[str, float]) -> dict[str, tuple[TaskRow, ...]]:
    """Return the tasks of SD 1.x/2.x and SDXL, whose classes differ by prefix.

    Args:
        prefix: Of every class name.
        strength: Default of image-to-image.
        masked: Defaults of inpainting.
    """
    masks = frozenset({"mask"})
    return {
        "text-to-image": (
            TaskRow(
                pipeline=f"{prefix}Pipeline",
                arguments=PLAIN,
                parameters={**_SD_PARAMETERS, "guidance_rescale": float},
            ),
            TaskRow(
                pipeline=f"{prefix}ControlNetPipeline",
                arguments={**PLAIN, "fit": "", "control_image": "image"},
                sources=_CONTROL,
                parameters=_CONTROL_PARAMETERS,
                components=_CONTROLNET,
            ),
        ),
        "image-to-image": (
            TaskRow(
                pipeline=f"{prefix}Img2ImgPipeline",
                arguments=BY_STRENGTH,
                images=(1, 1),
                parameters=_SD_PARAMETERS,
                defaults={"strength": strength},
            ),
            TaskRow(
                pipeline=f"{prefix}ControlNetImg2ImgPipeline",
                arguments={**BY_STRENGTH, **SIZE, "control_image": "control_image"},
                images=(1, 1),
                sources=_CONTROL,
                parameters=_CONTROL_PARAMETERS,
                defaults={"strength": 0.8},
                components=_CONTROLNET,
            ),
        ),
        "inpainting": (
            TaskRow(
                pipeline=f"{prefix}InpaintPipeline",
                arguments=MASKED,
                images=(1, 1),
                sources=masks,
                parameters=_SD_PARAMETERS,
                defaults=masked,
            ),
            TaskRow(
                pipeline=f"{prefix}ControlNetInpaintPipeline",
                arguments={**MASKED, "control_image": "control_image"},
                images=(1, 1),
                sources=masks | _CONTROL,
                parameters=_CONTROL_PARAMETERS,
                defaults={"strength": masked["strength"]},
                components=_CONTROLNET,
            ),
        ),
    }


IMAGE_FAMILIES: Final = (
    Family(
        title="Stable Diffusion 1.x/2.x",
        class_name="StableDiffusionPipeline",
        tasks=_stable_diffusion("StableDiffusion", 0.8, {"strength": 1.0}),
        size_multiple=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 7.5},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=0.803,
        pixels_reference=512 * 512,
        parameters_reference=859_520_964,
    ),
    Family(
        title="Stable Diffusion XL",
        class_name="StableDiffusionXLPipeline",
        tasks=_stable_diffusion("StableDiffusionXL", 0.3, {"strength": 0.9999, "guidance_scale": 7.5}),
        size_multiple=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=6.761,
        pixels_reference=1024 * 1024,
        parameters_reference=2_567_463_684,
    ),
)

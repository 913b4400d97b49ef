"""What the driver must know of model families, without torch.

    model_index.json's _class_name --> FAMILIES[...] --> tasks, sizes, arguments, defaults, schedulers, cost

A new family is a row. `tests/test_families.py` compares every row with diffusers' own classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task of one family.

    Attributes:
        pipeline: diffusers class that serves it.
        arguments: Manifest columns the task takes beside prompt, negative_prompt and seed.
        images: Fewest and most source images.
    """

    pipeline: str
    arguments: frozenset[str]
    images: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row of the table.

    Attributes:
        title: For people.
        class_name: `_class_name` in model_index.json.
        tasks: Task name to its row.
        size_multiple: Height and width are multiples of this, in pixels.
        size_min: Least height and width in pixels.
        size_max: Most, a guard against typing errors.
        num_inference_steps: Default.
        guidance_scale: Default.
        strength: Default, for tasks that take it.
        schedulers: Class names a row may ask for.
        denoiser: Folder of the denoiser in the model folder.
        tflop_reference: Work of one denoiser call at `pixels_reference`, 10^12 operations (2 x multiply-adds,
            counted with torch's FlopCounterMode on the published architecture; attention included).
        pixels_reference: Height times width of that count.
        parameters_reference: Parameters of the denoiser it was counted on; smaller models scale linearly.
    """

    title: str
    class_name: str
    tasks: Mapping[str, TaskRow]
    size_multiple: int
    size_min: int = 8
    size_max: int = 8192
    num_inference_steps: int
    guidance_scale: float
    strength: float
    schedulers: tuple[str, ...]
    denoiser: str
    tflop_reference: float
    pixels_reference: int
    parameters_reference: int


_IMAGE = frozenset({"height", "width", "num_inference_steps", "guidance_scale", "scheduler"})
_IMAGE_TO_IMAGE = _IMAGE | {"strength", "fit"}

FAMILIES: Final[Mapping[str, Family]] = {
    family.class_name: family
    for family in (
        Family(
            title="Stable Diffusion 1.x/2.x",
            class_name="StableDiffusionPipeline",
            tasks={
                "text-to-image": TaskRow(pipeline="StableDiffusionPipeline", arguments=_IMAGE),
                "image-to-image": TaskRow(
                    pipeline="StableDiffusionImg2ImgPipeline", arguments=_IMAGE_TO_IMAGE, images=(1, 1)
                ),
            },
            size_multiple=8,
            num_inference_steps=50,
            guidance_scale=7.5,
            strength=0.8,
            schedulers=EPSILON_SCHEDULERS,
            denoiser="unet",
            tflop_reference=0.803,
            pixels_reference=512 * 512,
            parameters_reference=859_520_964,
        ),
        Family(
            title="Stable Diffusion XL",
            class_name="StableDiffusionXLPipeline",
            tasks={
                "text-to-image": TaskRow(pipeline="StableDiffusionXLPipeline", arguments=_IMAGE),
                "image-to-image": TaskRow(
                    pipeline="StableDiffusionXLImg2ImgPipeline", arguments=_IMAGE_TO_IMAGE, images=(1, 1)
                ),
            },
            size_multiple=8,
            num_inference_steps=50,
            guidance_scale=5.0,
            strength=0.3,
            schedulers=EPSILON_SCHEDULERS,
            denoiser="unet",
            tflop_reference=6.761,
            pixels_reference=1024 * 1024,
            parameters_reference=2_567_463_684,
        ),
    )
}


def nearest_multiple(value: int, multiple: int, least: int, most: int) -> int:
    """Return the multiple of `multiple` in [least, most] nearest to `value`; the larger of two equally near."""
    lower = math.ceil(least / multiple) * multiple
    upper = most // multiple * multiple
    return min(max((value + multiple // 2) // multiple * multiple, lower), upper)


def cost_tflop(
    family: Family, *, parameters: int, height: int, width: int, num_frames: int, steps: int, guided: bool
) -> float:
    """Predict the work of one output in 10^12 floating point operations.

    Denoiser calls only, linear in pixels, frames and parameters, doubled by classifier-free guidance. Good to a
    factor of two, which is enough to order units; the seconds per TFLOP are measured while a run goes on.

    Args:
        family: The model's row.
        parameters: Parameters of the model's denoiser; 0 when unknown, which stands for the reference.
        height: Pixels.
        width: Pixels.
        num_frames: 1 for an image.
        steps: Denoiser steps that are really made.
        guided: Whether guidance doubles the calls.
    """
    scale = (parameters or family.parameters_reference) / family.parameters_reference
    pixels = height * width * num_frames / family.pixels_reference
    return family.tflop_reference * scale * pixels * steps * (2 if guided else 1)

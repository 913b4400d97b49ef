"""Families that make pictures.

column --> pipeline argument, per task; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NotRequired, TypedDict

from sdbatch.families.motion import animated, sparse
from sdbatch.families.table import Family, Route
from sdbatch.job import STEP_CACHES

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


class _OfFamily(TypedDict):
    """What several families have in common. See `Family`."""

    size_multiple: int
    defaults: Mapping[str, Any]
    schedulers: tuple[str, ...]
    denoiser: str
    tokenizer: NotRequired[str]
    tokens_max: int
    tflop_reference: float
    pixels_reference: int
    parameters_reference: int
    step_caches: NotRequired[frozenset[str]]


class _Shared(TypedDict):
    """What several ways of a family have in common. See `Route`."""

    parameters: Mapping[str, type]
    negative_needs: str
    rows_interact: bool
    per_row_guidance: bool


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

_MASK = frozenset({"mask"})
_CONTROL = frozenset({"control_image"})
_CONTROLNET: Final = {"controlnet": "ControlNetModel"}
_MOTION: Final = {"motion_adapter": "MotionAdapter"}
_SD_PARAMETERS: Final[Mapping[str, type]] = {"clip_skip": int, "eta": float}
_CONTROL_PARAMETERS: Final[Mapping[str, type]] = {
    **_SD_PARAMETERS,
    "controlnet_conditioning_scale": float,
    "guess_mode": bool,
    "control_guidance_start": float,
    "control_guidance_end": float,
}


def _stable_diffusion(
    prefix: str, strength: float, masked: Mapping[str, float], *, empty_negative_differs: bool = False
) -> dict[str, tuple[Route, ...]]:
    """Return the tasks of SD 1.x/2.x and SDXL, whose classes differ by prefix.

    Args:
        prefix: Of every class name.
        strength: Default of image-to-image.
        masked: Defaults of inpainting.
        empty_negative_differs: See `Route`.
    """
    tasks: dict[str, tuple[Route, ...]] = {
        "text-to-image": (
            Route(
                pipeline=f"{prefix}Pipeline",
                arguments=PLAIN,
                parameters={**_SD_PARAMETERS, "guidance_rescale": float},
            ),
            Route(
                pipeline=f"{prefix}ControlNetPipeline",
                arguments={**PLAIN, "fit": "", "control_image": "image"},
                sources=_CONTROL,
                parameters=_CONTROL_PARAMETERS,
                components=_CONTROLNET,
            ),
        ),
        "image-to-image": (
            Route(
                pipeline=f"{prefix}Img2ImgPipeline",
                arguments=BY_STRENGTH,
                images=(1, 1),
                parameters=_SD_PARAMETERS,
                defaults={"strength": strength},
            ),
            Route(
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
            Route(
                pipeline=f"{prefix}InpaintPipeline",
                arguments=MASKED,
                images=(1, 1),
                sources=_MASK,
                parameters=_SD_PARAMETERS,
                defaults=masked,
            ),
            Route(
                pipeline=f"{prefix}ControlNetInpaintPipeline",
                arguments={**MASKED, "control_image": "control_image"},
                images=(1, 1),
                sources=_MASK | _CONTROL,
                parameters=_CONTROL_PARAMETERS,
                defaults={"strength": masked["strength"]},
                components=_CONTROLNET,
            ),
        ),
    }
    return {
        task: tuple(
            replace(route, per_row_guidance=True, empty_negative_differs=empty_negative_differs) for route in routes
        )
        for task, routes in tasks.items()
    }


def _without_negative(arguments: Mapping[str, str]) -> dict[str, str]:
    return {column: argument for column, argument in arguments.items() if column != "negative_prompt"}


def _by_strength(
    prefix: str,
    parameters: Mapping[str, type],
    drawn: Mapping[str, float],
    masked: Mapping[str, float],
    *,
    negative_needs: str = "",
    guidance: str = "guidance_scale",
    rows_interact: bool = False,
    per_row_guidance: bool = False,
) -> dict[str, tuple[Route, ...]]:
    """Return the three tasks of a family whose classes differ by prefix and that is told the size in each.

    Args:
        prefix: Of every class name.
        parameters: What each takes.
        drawn: Defaults of image-to-image.
        masked: Defaults of inpainting.
        negative_needs: See `Route`.
        guidance: Argument that guidance goes to.
        rows_interact: See `Route`.
        per_row_guidance: See `Route`.
    """
    shared: _Shared = {
        "parameters": parameters,
        "negative_needs": negative_needs,
        "rows_interact": rows_interact,
        "per_row_guidance": per_row_guidance,
    }
    guided = {"guidance_scale": guidance}
    return {
        "text-to-image": (Route(pipeline=f"{prefix}Pipeline", arguments={**PLAIN, **guided}, **shared),),
        "image-to-image": (
            Route(
                pipeline=f"{prefix}Img2ImgPipeline",
                arguments={**BY_STRENGTH, **SIZE, **guided},
                images=(1, 1),
                full_strength_ignores_source=True,
                defaults=drawn,
                **shared,
            ),
        ),
        "inpainting": (
            Route(
                pipeline=f"{prefix}InpaintPipeline",
                arguments={**MASKED, **guided},
                images=(1, 1),
                sources=_MASK,
                defaults=masked,
                **shared,
            ),
        ),
    }


def _qwen_edit(pipeline: str, images: int) -> dict[str, tuple[Route, ...]]:
    return {
        "image-to-image": (
            Route(
                pipeline=pipeline,
                arguments={**PLAIN, "guidance_scale": "true_cfg_scale", "fit": "", "images": "image"},
                images=(1, images),
                rows="single",
                parameters={"max_sequence_length": int},
                requires=("torchvision",),
            ),
        ),
    }


_MEGAPIXEL: Final = {"height": 1024, "width": 1024}
_FLUX_PARAMETERS: Final[Mapping[str, type]] = {"true_cfg_scale": float, "max_sequence_length": int}
_FLUX: Final[_OfFamily] = {
    "size_multiple": 16,
    "defaults": {**_MEGAPIXEL, "num_inference_steps": 28, "guidance_scale": 3.5},
    "schedulers": FLOW_SCHEDULERS,
    "denoiser": "transformer",
    "tokenizer": "tokenizer_2",
    "tokens_max": 512,
    "tflop_reference": 74.38,
    "pixels_reference": 1024 * 1024,
    "parameters_reference": 11_901_408_320,
    "step_caches": frozenset(STEP_CACHES),
}
# The picture is made as large as its area says; without `_auto_resize` the source keeps its size.
_KONTEXT: Final[Mapping[str, str]] = {**PLAIN, "fit": "", "images": "image", "area": "max_area"}
_QWEN: Final[_OfFamily] = {
    "size_multiple": 16,
    "defaults": {**_MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
    "schedulers": FLOW_SCHEDULERS,
    "denoiser": "transformer",
    "tokens_max": 512,
    "tflop_reference": 78.30,
    "pixels_reference": 1024 * 1024,
    "parameters_reference": 20_430_401_088,
    "step_caches": frozenset(STEP_CACHES),
}

IMAGE_FAMILIES: Final = (
    Family(
        title="Stable Diffusion 1.x/2.x",
        class_name="StableDiffusionPipeline",
        tasks={
            **_stable_diffusion("StableDiffusion", 0.8, {"strength": 1.0}),
            **animated(_MOTION, "motion-schedule"),
            "image-to-video": (sparse({**_MOTION, "controlnet": "SparseControlNetModel"}, "motion-schedule"),),
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
    ),
    Family(
        title="Stable Diffusion XL",
        class_name="StableDiffusionXLPipeline",
        tasks=_stable_diffusion(
            "StableDiffusionXL", 0.3, {"strength": 0.9999, "guidance_scale": 7.5}, empty_negative_differs=True
        ),
        size_multiple=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=EPSILON_SCHEDULERS,
        denoiser="unet",
        tflop_reference=6.761,
        pixels_reference=1024 * 1024,
        parameters_reference=2_567_463_684,
        cfg_layout="halves",
    ),
    Family(
        title="Stable Diffusion 3/3.5",
        class_name="StableDiffusion3Pipeline",
        tasks=_by_strength(
            "StableDiffusion3",
            {"clip_skip": int, "max_sequence_length": int},
            {"num_inference_steps": 50, "strength": 0.6},
            {"num_inference_steps": 50, "strength": 0.6},
            per_row_guidance=True,
        ),
        size_multiple=16,
        defaults={"num_inference_steps": 28, "guidance_scale": 7.0},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokenizer="tokenizer_3",
        tokens_max=256,
        tflop_reference=8.904,
        pixels_reference=1024 * 1024,
        parameters_reference=2_028_328_000,
        cfg_layout="halves",
    ),
    Family(
        title="Flux.1",
        class_name="FluxPipeline",
        tasks=_by_strength(
            "Flux",
            _FLUX_PARAMETERS,
            {"guidance_scale": 7.0, "strength": 0.6},
            {"guidance_scale": 7.0, "strength": 0.6},
            negative_needs="true_cfg_scale",
        ),
        **_FLUX,
    ),
    Family(
        title="Flux.1 Kontext",
        class_name="FluxKontextPipeline",
        tasks={
            "image-to-image": (
                Route(
                    pipeline="FluxKontextPipeline",
                    arguments=_KONTEXT,
                    images=(1, 1),
                    constants={"_auto_resize": False},
                    parameters=_FLUX_PARAMETERS,
                    negative_needs="true_cfg_scale",
                ),
            ),
            "inpainting": (
                Route(
                    pipeline="FluxKontextInpaintPipeline",
                    arguments={**_KONTEXT, "mask": "mask_image", "strength": "strength"},
                    images=(1, 1),
                    sources=_MASK,
                    constants={"_auto_resize": False},
                    parameters=_FLUX_PARAMETERS,
                    defaults={"strength": 1.0},
                    negative_needs="true_cfg_scale",
                ),
            ),
        },
        **_FLUX,
    ),
    Family(
        title="Flux.1 Fill",
        class_name="FluxFillPipeline",
        tasks={
            "inpainting": (
                Route(
                    pipeline="FluxFillPipeline",
                    arguments=_without_negative(MASKED),
                    images=(1, 1),
                    sources=_MASK,
                    parameters={"max_sequence_length": int},
                    defaults={"num_inference_steps": 50, "guidance_scale": 30.0, "strength": 1.0},
                ),
            ),
        },
        **_FLUX,
    ),
    Family(
        title="Flux.2 Klein",
        class_name="Flux2KleinPipeline",
        tasks={
            "text-to-image": (
                Route(
                    pipeline="Flux2KleinPipeline",
                    arguments=_without_negative(PLAIN),
                    parameters={"max_sequence_length": int},
                ),
            ),
            "image-to-image": (
                Route(
                    pipeline="Flux2KleinPipeline",
                    arguments={**_without_negative(PLAIN), "fit": "", "images": "image"},
                    images=(1, 10),
                    # A list of images is one set of references for every prompt of the call.
                    rows="shared",
                    parameters={"max_sequence_length": int},
                ),
            ),
            "inpainting": (
                Route(
                    pipeline="Flux2KleinInpaintPipeline",
                    arguments=_without_negative(MASKED),
                    images=(1, 1),
                    sources=_MASK,
                    parameters={"max_sequence_length": int},
                    defaults={"guidance_scale": 8.0, "strength": 0.8},
                ),
            ),
        },
        size_multiple=16,
        defaults={**_MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 4.0},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=34.82,
        pixels_reference=1024 * 1024,
        parameters_reference=3_875_544_576,
        step_caches=frozenset({"MagCache", "TaylorSeerCache"}),
    ),
    Family(
        title="Qwen-Image",
        class_name="QwenImagePipeline",
        tasks=_by_strength(
            "QwenImage",
            {"max_sequence_length": int},
            {"strength": 0.6},
            {"strength": 0.6},
            guidance="true_cfg_scale",
            rows_interact=True,  # prompts are padded to the longest of the call
        ),
        **_QWEN,
    ),
    Family(
        title="Qwen-Image-Edit",
        class_name="QwenImageEditPipeline",
        tasks=_qwen_edit("QwenImageEditPipeline", images=1),
        **_QWEN,
    ),
    Family(
        title="Qwen-Image-Edit-Plus",
        class_name="QwenImageEditPlusPipeline",
        tasks=_qwen_edit("QwenImageEditPlusPipeline", images=3),
        **_QWEN,
    ),
    Family(
        title="Z-Image",
        class_name="ZImagePipeline",
        tasks=_by_strength(
            "ZImage",
            {"cfg_normalization": bool, "cfg_truncation": float, "max_sequence_length": int},
            {"strength": 0.6},
            {"strength": 1.0},
        ),
        size_multiple=16,
        defaults={**_MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=62.51,
        pixels_reference=1024 * 1024,
        parameters_reference=6_154_908_736,
    ),
    Family(
        title="Sana",
        class_name="SanaPipeline",
        tasks={
            "text-to-image": (
                Route(
                    pipeline="SanaPipeline",
                    arguments=PLAIN,
                    # Else a size that is not in its list is made at another one and resized.
                    constants={"use_resolution_binning": False},
                    parameters={"eta": float, "max_sequence_length": int},
                    rows_interact=True,  # its convolutions round by position
                    per_row_guidance=True,
                ),
            ),
        },
        size_multiple=32,
        defaults={"num_inference_steps": 20, "guidance_scale": 4.5},
        schedulers=(),
        denoiser="transformer",
        tokens_max=300,
        tflop_reference=2.967,
        pixels_reference=1024 * 1024,
        parameters_reference=1_604_462_752,
    ),
)

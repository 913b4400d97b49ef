"""Scheduler classes a row may ask for, by what a model predicts."""

from __future__ import annotations

from collections.abc import Mapping
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
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers of models that predict noise or velocity; DPMSolverSDE, which needs torchsde, is none of them."""

FLOW_SCHEDULERS: Final = ("FlowMatchEulerDiscreteScheduler",)
"""Schedulers of models that predict a flow."""

EULER_SCHEDULERS: Final = ("EulerDiscreteScheduler",)
"""Schedulers of Stable Video Diffusion, whose noise levels are continuous."""

COGVIDEOX_SCHEDULERS: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
"""Schedulers of CogVideoX, whose pipelines name both."""

MOTION_SCHEDULERS: Final = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "PNDMScheduler",
)
"""Schedulers that AnimateDiff's pipelines name, but LMSDiscrete, which needs scipy."""

WAN_SCHEDULERS: Final = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Schedulers that read the folder's `flow_shift`; FlowMatchEuler would silently use its own."""

OF_FLOW: Final = ("FlowMatch", "LTXEuler")
"""How the names of schedulers begin that read what a model predicts as a flow, whatever their configuration says."""

TOLD_OF_FLOW: Final = (
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers that read it so where their configuration says both `prediction_type: flow_prediction` and
`use_flow_sigmas`; with one of the two they render noise, or fail."""

OF_OTHER_PIPELINES: Final = frozenset(
    {
        "AmusedScheduler",
        "DDIMInverseScheduler",
        "DDPMWuerstchenScheduler",
        "DPMSolverMultistepInverseScheduler",
        "IPNDMScheduler",
        "RePaintScheduler",
        "SCMScheduler",
        "ScoreSdeVeScheduler",
        "UnCLIPScheduler",
        "VQDiffusionScheduler",
    }
)
"""Schedulers that the pipelines of models that predict noise cannot call, or not from a picture. With the inverse ones,
which add noise, they make noise."""

TAKE_SIGMAS: Final = (*FLOW_SCHEDULERS, "FlowMatchLCMScheduler", "UniPCMultistepScheduler")
"""Schedulers of a flow to which a pipeline can give the noise levels of the steps and how far they are shifted."""

OF_OWN_NOISE: Final = (
    "CMStochasticIterativeScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
)
"""Schedulers of models that were trained for noise levels of their own, such as Playground 2.5; no other fits them."""

SAY_NO_SHIFT: Final = frozenset(
    {
        "AuraFlowPipeline",
        "HunyuanImagePipeline",
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideo15Pipeline",
        "Kandinsky5I2IPipeline",
        "Kandinsky5I2VPipeline",
        "Kandinsky5T2IPipeline",
        "Kandinsky5T2VPipeline",
        "LTXConditionPipeline",
        "SanaPipeline",
        "StableDiffusion3ControlNetInpaintingPipeline",
        "StableDiffusion3ControlNetPipeline",
        "WanImageToVideoPipeline",
        "WanPipeline",
        "WanVACEPipeline",
        "WanVideoToVideoPipeline",
    }
)
"""Pipelines of a flow that do not tell a scheduler with `use_dynamic_shifting` how far noise levels are shifted."""

SCALE_NOISE: Final = frozenset(
    {
        "ChromaImg2ImgPipeline",
        "Flux2KleinInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "FluxFillPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxKontextInpaintPipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
    }
)
"""Pipelines that begin from a picture by `scale_noise`, which the FlowMatch schedulers alone have."""

CALLED_ALONE: Final[Mapping[str, tuple[str, ...]]] = {
    "LTXConditionPipeline": FLOW_SCHEDULERS,
    "WanVideoToVideoPipeline": (*FLOW_SCHEDULERS, "FlowMatchLCMScheduler", *TOLD_OF_FLOW),
    **dict.fromkeys(
        (
            "ZImageControlNetInpaintPipeline",
            "ZImageControlNetPipeline",
            "ZImageImg2ImgPipeline",
            "ZImageInpaintPipeline",
            "ZImagePipeline",
        ),
        (*FLOW_SCHEDULERS, "FlowMatchLCMScheduler"),
    ),
}
"""Schedulers of a flow that a pipeline can call, where others can call more. LTX' of key frames and clips tells it the
time of each token; Z-Image's give it noise levels as a list, with which UniPC cannot compute; Wan's of clips begins
from one, which FlowMatchHeun does for one row alone and LTXEuler not at all (0.42.1)."""

"""Scheduler classes a row may ask for, by what a model predicts."""

from __future__ import annotations

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

FLOW_SCHEDULERS: Final = ("FlowMatchEulerDiscreteScheduler",)
"""For models that predict a flow."""

EULER_SCHEDULERS: Final = ("EulerDiscreteScheduler",)
"""For Stable Video Diffusion, whose noise levels are continuous."""

COGVIDEOX_SCHEDULERS: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
"""For CogVideoX, whose noise levels are shifted toward zero signal."""

MOTION_SCHEDULERS: Final = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "PNDMScheduler",
)
"""Those that AnimateDiff's pipelines name; LMSDiscrete wants scipy."""

WAN_SCHEDULERS: Final = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Those that read the folder's `flow_shift`; FlowMatchEuler would silently take its own."""

"""Which pipeline argument a manifest column goes to, where several families agree.

column --> pipeline argument; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sdbatch.columns import Range
from sdbatch.families.table import Route

SETTLED: Final = {"scheduler": "", "loras": ""}

TEXT: Final = {"prompt": "prompt", "negative_prompt": "negative_prompt"}

SIZE: Final = {"height": "height", "width": "width"}

STEPS: Final = {"num_inference_steps": "num_inference_steps", "guidance_scale": "guidance_scale"}

PLAIN: Final[Mapping[str, str]] = {**TEXT, **SIZE, **STEPS, **SETTLED}
"""Arguments for a picture from text."""

SIZED_BY_SOURCE: Final[Mapping[str, str]] = {**PLAIN, "height": "", "width": "", "fit": ""}

BY_STRENGTH: Final[Mapping[str, str]] = {**SIZED_BY_SOURCE, "images": "image", "strength": "strength"}
"""Arguments for a picture from a picture of the same size."""

MASKED: Final[Mapping[str, str]] = {
    **PLAIN,
    "fit": "",
    "images": "image",
    "mask": "mask_image",
    "strength": "strength",
}
"""Arguments for a picture that is painted anew where a mask is white."""

MEGAPIXEL: Final[Mapping[str, Any]] = {"height": 1024, "width": 1024}

CLIP: Final[Mapping[str, str]] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "num_frames": "num_frames",
    "duration_s": "",
    "fps": "",
    "num_inference_steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "scheduler": "",
    "loras": "",
}
"""Arguments for a clip from text; the playback rate is not an argument."""

FROM_IMAGE: Final[Mapping[str, str]] = {**CLIP, "fit": "", "images": "image"}
"""Arguments for a clip from one image or more."""

FROM_CLIP: Final[Mapping[str, str]] = {**CLIP, "num_frames": "", "fit": "", "video": "video", "strength": "strength"}
"""Arguments for a clip from a clip that was brought to its size and number of frames."""

PARAMETER_BOUNDS: Final[Mapping[str, Range]] = {
    "clip_skip": Range(least=0, most=32),
    "control_mode": Range(least=-1, most=31),
    "decode_chunk_size": Range(least=1, most=1025),
    "max_sequence_length": Range(least=1, most=4096),
    "motion_bucket_id": Range(least=0, most=1023),
    "noise_level": Range(least=0, most=350),
    "output_resolution": Range(least=32, most=4096),
}
"""What further pipeline arguments are held to, those whose bounds are closer than `PARAMETER_BOUND`."""

PARAMETER_BOUND: Final = Range(least=-1000, most=1000)
"""What every other number among them is held to, a guard against typing errors."""

PER_NET: Final = frozenset(
    {"controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "control_mode"}
)
"""Further arguments that may be a list where a row has several control pictures: a number for each."""

NO_MODE: Final = -1
"""`control_mode` of a ControlNet of a single kind; without it some pipelines leave every ControlNet out (0.42.1)."""

KEYFRAMES_MAX: Final = 64
"""Greatest number of key frames of a clip, a guard against typing errors."""


REFERENCES: Final[Mapping[str, str]] = {"ip_adapter_images": "ip_adapter_image", "ip_adapter_scale": ""}
"""Arguments of a route that may be given reference pictures; their scale is set on the denoiser."""


def with_references(route: Route) -> Route:
    """Return a route that takes reference pictures as well, where the model entry has an `ip_adapter`."""
    return replace(route, arguments={**route.arguments, **REFERENCES}, optional=route.optional | {"ip_adapter_images"})


def without(arguments: Mapping[str, str], *columns: str) -> dict[str, str]:
    """Return the arguments of a family that does not take some columns."""
    return {column: name for column, name in arguments.items() if column not in columns}

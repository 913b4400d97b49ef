"""What families that make clips share, and AnimateDiff's ways, which a Stable Diffusion folder has too.

column --> pipeline argument; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.families.table import Route

MOTION_SCHEDULERS: Final = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "PNDMScheduler",
)
"""Those that AnimateDiff's pipelines name; LMSDiscrete wants scipy."""

KEYFRAMES_MAX: Final = 64
"""Most key frames of a clip, a guard against typing errors."""

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
"""A clip from text; the rate is for its players alone."""

FROM_IMAGE: Final[Mapping[str, str]] = {**CLIP, "fit": "", "images": "image"}
"""A clip from one image or more."""

FROM_CLIP: Final[Mapping[str, str]] = {**CLIP, "num_frames": "", "fit": "", "video": "video", "strength": "strength"}
"""A clip from a clip, which was brought to its size and number of frames."""

_PARAMETERS: Final[Mapping[str, type]] = {"eta": float, "clip_skip": int}


def _unadapted(arguments: Mapping[str, str]) -> dict[str, str]:
    """Leave LoRAs out: the motion model is a copy of the UNet, which they would not reach."""
    return {column: name for column, name in arguments.items() if column != "loras"}


def animated(components: Mapping[str, str], adapter: str) -> Mapping[str, tuple[Route, ...]]:
    """Return AnimateDiff's ways of making clips from text and clips.

    Args:
        components: Folders that the job's model entry must name.
        adapter: As in `Route`.
    """
    return {
        "text-to-video": (
            Route(
                pipeline="AnimateDiffPipeline",
                arguments=_unadapted(CLIP),
                components=components,
                adapter=adapter,
                parameters={**_PARAMETERS, "decode_chunk_size": int},
            ),
        ),
        "video-to-video": (
            Route(
                pipeline="AnimateDiffVideoToVideoPipeline",
                arguments=_unadapted(FROM_CLIP),
                sources=frozenset({"video"}),
                components=components,
                adapter=adapter,
                parameters={**_PARAMETERS, "decode_chunk_size": int},
                defaults={"strength": 0.8},
            ),
        ),
    }


def sparse(components: Mapping[str, str], adapter: str) -> Route:
    """Return SparseCtrl's way of making a clip from key frames. See `animated`."""
    return Route(
        pipeline="AnimateDiffSparseControlNetPipeline",
        arguments={
            **_unadapted(FROM_IMAGE),
            "images": "conditioning_frames",
            "keyframes": "controlnet_frame_indices",
        },
        images=(1, KEYFRAMES_MAX),
        rows="single",
        keyframes="any",
        components=components,
        adapter=adapter,
        parameters={**_PARAMETERS, "controlnet_conditioning_scale": float, "guess_mode": bool},
    )


ANIMATED: Final = animated({}, "")
SPARSE: Final = sparse({}, "")

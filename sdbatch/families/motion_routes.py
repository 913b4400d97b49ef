"""AnimateDiff's routes, which a Stable Diffusion folder has too once the job names a motion adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.families.arguments import CLIP, FROM_CLIP, FROM_IMAGE, KEYFRAMES_MAX, without
from sdbatch.families.table import Route

_PARAMETERS: Final[Mapping[str, type]] = {"eta": float, "clip_skip": int}

# The motion model is a copy of the UNet, which LoRAs would not reach.
_CLIP: Final = without(CLIP, "loras")
_FROM_CLIP: Final = without(FROM_CLIP, "loras")
_FROM_IMAGE: Final = without(FROM_IMAGE, "loras")


def animated_routes(components: Mapping[str, str], adapter: str) -> Mapping[str, tuple[Route, ...]]:
    """Return AnimateDiff's routes for clips from text and from clips.

    Args:
        components: Folders that the job's model entry must name.
        adapter: As in `Route`.
    """
    return {
        "text-to-video": (
            Route(
                pipeline="AnimateDiffPipeline",
                arguments=_CLIP,
                components=components,
                adapter=adapter,
                parameters={**_PARAMETERS, "decode_chunk_size": int},
            ),
        ),
        "video-to-video": (
            Route(
                pipeline="AnimateDiffVideoToVideoPipeline",
                arguments=_FROM_CLIP,
                sources=frozenset({"video"}),
                components=components,
                adapter=adapter,
                parameters={**_PARAMETERS, "decode_chunk_size": int},
                defaults={"strength": 0.8},
            ),
        ),
    }


def sparse_route(components: Mapping[str, str], adapter: str) -> Route:
    """Return SparseCtrl's route for a clip from key frames; the arguments are those of `animated_routes`.

    It takes no `guess_mode`: beside guidance the pipeline adds the net's half of the rows to all of them, and fails.
    """
    return Route(
        pipeline="AnimateDiffSparseControlNetPipeline",
        arguments={
            **_FROM_IMAGE,
            "images": "conditioning_frames",
            "keyframes": "controlnet_frame_indices",
        },
        images=(1, KEYFRAMES_MAX),
        rows="single",
        keyframes="any",
        components=components,
        adapter=adapter,
        parameters={**_PARAMETERS, "controlnet_conditioning_scale": float},
    )

"""AnimateDiff, as a folder of its own, and SparseCtrl."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sdbatch.families.motion_routes import animated_routes, sparse_route
from sdbatch.families.schedulers import MOTION_SCHEDULERS
from sdbatch.families.table import Family

_ANIMATEDIFF: Final = Family(
    title="AnimateDiff",
    class_name="AnimateDiffPipeline",
    tasks=animated_routes({}, ""),
    size_multiple=8,
    frame_multiple=1,
    frames_max=32,
    defaults={"num_frames": 16, "fps": 8.0, "num_inference_steps": 50, "guidance_scale": 7.5},
    schedulers=MOTION_SCHEDULERS,
    denoiser="unet",
    tflop_reference=17.7,
    pixels_reference=512 * 512 * 16,
    parameters_reference=1_312_730_244,
)

FAMILIES: Final = (
    _ANIMATEDIFF,
    replace(
        _ANIMATEDIFF,
        title="AnimateDiff SparseCtrl",
        class_name="AnimateDiffSparseControlNetPipeline",
        tasks={**_ANIMATEDIFF.tasks, "image-to-video": (sparse_route({}, ""),)},
    ),
)

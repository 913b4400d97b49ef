"""Families that make clips.

column --> pipeline argument, per task; "" for what is settled outside the call
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdbatch.families.images import FLOW_SCHEDULERS, PLAIN
from sdbatch.families.table import Family, TaskRow

CLIP: Final[Mapping[str, str]] = {**PLAIN, "num_frames": "num_frames", "duration_s": "", "fps": ""}
"""A clip from text; the rate is for its players alone."""

CLIP_FAMILIES: Final = (
    Family(
        title="LTX-Video",
        class_name="LTXPipeline",
        tasks={
            "text-to-video": (
                TaskRow(
                    pipeline="LTXPipeline",
                    arguments={**CLIP, "fps": "frame_rate"},
                    parameters={
                        "guidance_rescale": float,
                        "decode_timestep": float,
                        "decode_noise_scale": float,
                        "max_sequence_length": int,
                    },
                ),
            ),
        },
        size_multiple=32,
        frame_multiple=8,
        defaults={
            "height": 512,
            "width": 704,
            "num_frames": 161,
            "fps": 25.0,
            "num_inference_steps": 50,
            "guidance_scale": 3.0,
        },
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokens_max=128,
        tflop_reference=22.0,
        pixels_reference=512 * 704 * 161,
        parameters_reference=1_923_385_472,
    ),
)

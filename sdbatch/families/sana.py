"""Sana."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import PLAIN
from sdbatch.families.table import Family, Route

FAMILIES: Final = (
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

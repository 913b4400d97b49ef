"""AuraFlow."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import MEGAPIXEL, PLAIN
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_FIRST: Final = Family(
    title="AuraFlow",
    class_name="AuraFlowPipeline",
    when={"transformer/config.json pos_embed_max_size": 4096},
    tasks={
        "text-to-image": (
            Route(
                pipeline="AuraFlowPipeline",
                arguments=PLAIN,
                parameters={"max_sequence_length": int},
                per_row_guidance=True,
            ),
        ),
    },
    size_multiple=16,
    # Its learned positions are those of 64 x 64 tokens; beyond them the denoiser takes others' (0.42.1).
    size_max=1024,
    defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 3.5},
    schedulers=FLOW_SCHEDULERS,
    denoiser="transformer",
    tokens_max=256,
    tflop_reference=43.97,
    pixels_reference=1024 * 1024,
    parameters_reference=6_858_605_568,
)

FAMILIES: Final = (
    _FIRST,
    replace(
        _FIRST,
        title="AuraFlow 0.3",
        when={"transformer/config.json pos_embed_max_size": 9216},
        size_max=1536,
    ),
)

"""HunyuanVideo 1.5."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import CLIP, without
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

# The pipeline has no LoRA loader, and its guidance is a component, not an argument.
_CLIP: Final = without({**CLIP, "guidance_scale": ""}, "loras")

_TEXT: Final = Family(
    title="HunyuanVideo 1.5",
    class_name="HunyuanVideo15Pipeline",
    tasks={
        "text-to-video": (Route(pipeline="HunyuanVideo15Pipeline", arguments=_CLIP, adapter="hunyuan"),),
    },
    size_multiple=16,
    frame_multiple=4,
    defaults={
        "height": 480,
        "width": 848,
        "num_frames": 121,
        "fps": 24.0,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    schedulers=FLOW_SCHEDULERS,
    gives_sigmas=True,
    denoiser="transformer",
    tokens_max=1000,
    # By formula, as its masks have no values on the meta device: half of the 8.3e9 weights see a token of the clip,
    # half one of the text, and 54 layers attend over all 51,275 tokens.
    tflop_reference=1590.0,
    pixels_reference=480 * 848 * 121,
    parameters_reference=8_332_000_000,
    step_caches=frozenset({"TaylorSeerCache"}),
    # The decoder takes 1.7 GB for a million pixels times frames in bfloat16: 82 GB for the default clip, of 49 million.
    # Up to here, 54 GB, keys say nothing of tiles, as those of earlier versions did.
    untiled_max=32_000_000,
)

_IMAGE: Final = replace(
    _TEXT,
    title="HunyuanVideo 1.5 I2V",
    class_name="HunyuanVideo15ImageToVideoPipeline",
    tasks={
        "image-to-video": (
            Route(
                pipeline="HunyuanVideo15ImageToVideoPipeline",
                arguments={**_CLIP, "height": "", "width": "", "fit": "", "images": "image"},
                images=(1, 1),
                rows="shared",
                adapter="hunyuan",
            ),
        ),
    },
)

FAMILIES: Final = (_TEXT, _IMAGE)

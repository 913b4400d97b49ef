"""Qwen-Image 2.1, which makes a picture from text alone, or from pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sdbatch.families.arguments import MEGAPIXEL, PLAIN
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_ARGUMENTS: Final[Mapping[str, str]] = {**PLAIN, "guidance_scale": "true_cfg_scale"}
_SHARED: Final[Mapping[str, Any]] = {
    "pipeline": "QwenImage21Pipeline",
    # A folder may have noise levels of its own, by whose number the pipeline would replace a row's steps.
    "adapter": "own-sigmas",
    # Its processor is made of two for pictures and clips, which transformers gives out beside torchvision alone.
    "requires": ("torchvision",),
    # The place of a picture's tokens follows that of the longest prompt of a call (0.42.1): by up to 82 of 255.
    "rows": "single",
}

FAMILIES: Final = (
    Family(
        title="Qwen-Image 2.1",
        class_name="QwenImage21Pipeline",
        tasks={
            "text-to-image": (Route(arguments=_ARGUMENTS, **_SHARED),),
            "image-to-image": (
                Route(
                    arguments={**_ARGUMENTS, "fit": "", "images": "image"},
                    images=(1, 10),
                    parameters={"output_resolution": int},
                    **_SHARED,
                ),
            ),
        },
        size_multiple=32,
        defaults={**MEGAPIXEL, "num_inference_steps": 40, "guidance_scale": 1.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        tokenizer="processor",
        # By formula, as its masks have no values on the meta device: 4,096 tokens of the picture see 6.98e9 weights,
        # and attend in 32 layers of 4,096 channels over themselves and 512 of a text, whose own part is kept.
        tflop_reference=67.1,
        pixels_reference=1024 * 1024,
        parameters_reference=7_115_124_736,
    ),
)

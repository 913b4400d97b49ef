"""HunyuanImage 2.1, and the one whose guidance is distilled."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sdbatch.families.arguments import PLAIN, without
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

# The pipeline has no LoRA loader, and its guidance is a component, not an argument.
_ARGUMENTS: Final = without({**PLAIN, "guidance_scale": ""}, "loras")

_GUIDED: Final = Family(
    title="HunyuanImage 2.1",
    class_name="HunyuanImagePipeline",
    # Without one the pipeline makes every picture unguided, and reads no negative prompt (0.42.1).
    unless={"model_index.json guider": None},
    tasks={
        "text-to-image": (
            Route(
                pipeline="HunyuanImagePipeline",
                arguments=_ARGUMENTS,
                # One prompt with words in quotation marks would choose the guidance of all rows of a call (0.42.1).
                rows="single",
                adapter="guiders",
            ),
        ),
    },
    size_multiple=32,
    defaults={"height": 2048, "width": 2048, "num_inference_steps": 50, "guidance_scale": 3.5},
    schedulers=FLOW_SCHEDULERS,
    gives_sigmas=True,
    denoiser="transformer",
    tokens_max=1000,
    # By formula, as its masks have no values on the meta device: 4,096 tokens of the picture and 1,128 of the text see
    # 9.2e9 weights, and attend in 60 layers of 3,584 channels.
    tflop_reference=120.1,
    pixels_reference=2048 * 2048,
    parameters_reference=17_425_795_520,
)

_DISTILLED: Final = replace(
    _GUIDED,
    title="HunyuanImage 2.1 distilled",
    unless={},
    when={"transformer/config.json guidance_embeds": True},
    tasks={
        "text-to-image": (
            Route(
                pipeline="HunyuanImagePipeline",
                arguments=without({**PLAIN, "guidance_scale": "distilled_guidance_scale"}, "loras", "negative_prompt"),
                rows="single",
                guidance_is_distilled=True,
            ),
        ),
    },
    # Its card says 8 steps.
    defaults={"height": 2048, "width": 2048, "num_inference_steps": 8, "guidance_scale": 3.25},
    parameters_reference=17_453_334_976,
)

FAMILIES: Final = (_GUIDED, _DISTILLED)

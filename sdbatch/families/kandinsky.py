"""Kandinsky 5, which makes pictures."""

from __future__ import annotations

from typing import Any, Final

from sdbatch.families.arguments import MEGAPIXEL, PLAIN
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_SHARED: Final[dict[str, Any]] = {
    "parameters": {"max_sequence_length": int},
    # Its tokenizer is a Qwen2VLProcessor, which transformers gives out beside torchvision alone.
    "requires": ("torchvision",),
    # Texts of a call are filled up to the longest, and what fills them up is read (0.42.1): by up to 80 of 255.
    "rows": "single",
}
_PICTURE_SIZES: Final = ((1024, 1024), (1408, 640), (640, 1408), (1280, 768), (768, 1280), (1152, 896), (896, 1152))

FAMILIES: Final = (
    Family(
        title="Kandinsky 5 T2I",
        class_name="Kandinsky5T2IPipeline",
        tasks={
            "text-to-image": (Route(pipeline="Kandinsky5T2IPipeline", arguments=PLAIN, **_SHARED),),
        },
        size_multiple=128,
        sizes=_PICTURE_SIZES,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 3.5},
        schedulers=FLOW_SCHEDULERS,
        denoiser="transformer",
        tokens_max=512,
        tflop_reference=48.1,
        pixels_reference=1024 * 1024,
        parameters_reference=6_022_080_576,
    ),
)

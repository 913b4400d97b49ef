"""Kandinsky 5, which makes pictures and clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sdbatch.families.arguments import CLIP, FROM_IMAGE, MEGAPIXEL, PLAIN
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

_SHARED: Final[dict[str, Any]] = {
    "parameters": {"max_sequence_length": int},
    # Its tokenizer is a Qwen2VLProcessor, which transformers gives out beside torchvision alone.
    "requires": ("torchvision",),
    # Texts of a call are filled up to the longest, and what fills them up is read (0.42.1): by up to 80 of 255.
    "rows": "single",
}

_PICTURES: Final = Family(
    title="Kandinsky 5 T2I",
    class_name="Kandinsky5T2IPipeline",
    tasks={"text-to-image": (Route(pipeline="Kandinsky5T2IPipeline", arguments=PLAIN, **_SHARED),)},
    size_multiple=128,
    sizes=((1024, 1024), (1408, 640), (640, 1408), (1280, 768), (768, 1280), (1152, 896), (896, 1152)),
    defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 3.5},
    schedulers=FLOW_SCHEDULERS,
    denoiser="transformer",
    tokens_max=512,
    tflop_reference=48.1,
    pixels_reference=1024 * 1024,
    parameters_reference=6_022_080_576,
)

_PICTURES_FROM_ONE: Final = replace(
    _PICTURES,
    title="Kandinsky 5 I2I",
    class_name="Kandinsky5I2IPipeline",
    tasks={
        "image-to-image": (
            Route(
                pipeline="Kandinsky5I2IPipeline",
                arguments={**PLAIN, "fit": "", "images": "image"},
                images=(1, 1),
                adapter="whole-prompt",
                **_SHARED,
            ),
        )
    },
    # No prompt is cut: one that does not fit beside its picture is refused by the adapter.
    tokens_max=0,
    parameters_reference=6_022_254_656,
)

_CLIPS: Final = Family(
    title="Kandinsky 5 T2V",
    class_name="Kandinsky5T2VPipeline",
    # Its sparse attention (the models of ten seconds) needs a backend that is not tried.
    unless={"transformer/config.json attention_type": "nabla"},
    tasks={"text-to-video": (Route(pipeline="Kandinsky5T2VPipeline", arguments=CLIP, **_SHARED),)},
    size_multiple=16,
    # The denoiser has 128 places along each side, of 16 pixels, and along time.
    size_max=2048,
    frame_multiple=4,
    frames_max=509,
    defaults={
        "height": 512,
        "width": 768,
        "num_frames": 121,
        "fps": 24.0,
        "num_inference_steps": 50,
        "guidance_scale": 5.0,
    },
    schedulers=FLOW_SCHEDULERS,
    denoiser="transformer",
    tokens_max=512,
    tflop_reference=663.0,
    pixels_reference=512 * 768 * 121,
    parameters_reference=2_007_702_848,
)

_CLIPS_FROM_IMAGE: Final = replace(
    _CLIPS,
    title="Kandinsky 5 I2V",
    class_name="Kandinsky5I2VPipeline",
    tasks={
        "image-to-video": (Route(pipeline="Kandinsky5I2VPipeline", arguments=FROM_IMAGE, images=(1, 1), **_SHARED),)
    },
    # Its first four latents are brought near those after them; without any, they are no numbers (0.42.1).
    frames_min=17,
)

FAMILIES: Final = (_PICTURES, _PICTURES_FROM_ONE, _CLIPS, _CLIPS_FROM_IMAGE)

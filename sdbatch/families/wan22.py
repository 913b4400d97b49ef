"""Wan 2.2; its A14B models have a second transformer for the later steps."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import CLIP, FROM_IMAGE, KEYFRAMES_MAX
from sdbatch.families.wan_routes import TWO_STAGES, image_routes, text_routes, vace_routes, wan_family

_SECOND_DENOISER: Final = {"model_index.json transformer_2": ["diffusers", "WanTransformer3DModel"]}

_SECOND_VACE_DENOISER: Final = {"model_index.json transformer_2": ["diffusers", "WanVACETransformer3DModel"]}

FAMILIES: Final = (
    wan_family(
        "Wan 2.2 TI2V",
        "WanPipeline",
        # The pipeline takes a last image and ignores it where time steps are expanded.
        {"text-to-video": text_routes(), "image-to-video": image_routes((1, 1), is_chained=False)},
        when={"model_index.json expand_timesteps": True},
        size_multiple=32,
        defaults={"height": 704, "width": 1280, "num_frames": 121, "fps": 24.0},
        tflop_reference=153.4,
        parameters_reference=4_999_787_712,
    ),
    wan_family(
        "Wan 2.2 T2V A14B",
        "WanPipeline",
        {"text-to-video": text_routes(CLIP, TWO_STAGES)},
        when=_SECOND_DENOISER,
        is_two_stage=True,
        defaults={"num_inference_steps": 40, "guidance_scale": 4.0},
    ),
    wan_family(
        "Wan 2.2 I2V A14B",
        "WanImageToVideoPipeline",
        {
            "image-to-video": image_routes(
                (1, KEYFRAMES_MAX), is_chained=True, arguments=FROM_IMAGE, parameters=TWO_STAGES
            )
        },
        when=_SECOND_DENOISER,
        is_two_stage=True,
        defaults={"num_inference_steps": 40, "guidance_scale": 3.5},
    ),
    wan_family(
        "Wan 2.2 VACE A14B",
        "WanVACEPipeline",
        vace_routes(TWO_STAGES),
        when=_SECOND_VACE_DENOISER,
        is_two_stage=True,
        tflop_reference=2030.0,
        parameters_reference=17_337_592_896,
    ),
)

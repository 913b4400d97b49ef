"""Wan 2.1."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import FROM_CLIP, KEYFRAMES_MAX
from sdbatch.families.table import Route
from sdbatch.families.wan_routes import PARAMETERS, image_routes, text_routes, vace_routes, wan_family

FAMILIES: Final = (
    wan_family(
        "Wan 2.1 T2V",
        "WanPipeline",
        {
            "text-to-video": text_routes(),
            "video-to-video": (
                Route(
                    pipeline="WanVideoToVideoPipeline",
                    arguments=FROM_CLIP,
                    full_strength_ignores_source=True,
                    sources=frozenset({"video"}),
                    parameters=PARAMETERS,
                    defaults={"strength": 0.8},
                ),
            ),
        },
    ),
    wan_family(
        "Wan 2.1 FLF2V",
        "WanImageToVideoPipeline",
        {"image-to-video": image_routes((2, KEYFRAMES_MAX), is_chained=True)},
        when={"transformer/config.json pos_embed_seq_len": ...},
        tflop_reference=1686.0,
        parameters_reference=16_394_878_784,
    ),
    wan_family(
        "Wan 2.1 I2V",
        "WanImageToVideoPipeline",
        {"image-to-video": image_routes((1, 1), is_chained=False)},
        tflop_reference=1686.0,
        parameters_reference=16_394_878_784,
    ),
    wan_family(
        "Wan 2.1 VACE",
        "WanVACEPipeline",
        vace_routes(PARAMETERS),
        tflop_reference=2030.0,
        parameters_reference=17_337_592_896,
    ),
)

"""HiDream-I1, whose text is read by four encoders."""

from __future__ import annotations

from typing import Final

from sdbatch.families.arguments import MEGAPIXEL, PLAIN
from sdbatch.families.schedulers import FLOW_SCHEDULERS
from sdbatch.families.table import Family, Route

FAMILIES: Final = (
    Family(
        title="HiDream-I1",
        class_name="HiDreamImagePipeline",
        tasks={
            "text-to-image": (
                Route(
                    pipeline="HiDreamImagePipeline",
                    arguments=PLAIN,
                    # Its experts are given the tokens of all rows at once, which moves their last bits.
                    rows_interact=True,
                    adapter="own-size",
                    parameters={"max_sequence_length": int},
                ),
            ),
        },
        size_multiple=16,
        # The denoiser has places for as many tokens as 1024 x 1024 pixels have.
        pixels_max=1024 * 1024,
        defaults={**MEGAPIXEL, "num_inference_steps": 50, "guidance_scale": 5.0},
        schedulers=FLOW_SCHEDULERS,
        gives_sigmas=True,
        denoiser="transformer",
        # The encoder by T5 and the one by Llama read so many tokens.
        tokenizer="tokenizer_4",
        tokens_max=128,
        # By formula, as its experts are chosen by values: two of four see a token, and 48 layers attend over 4,480.
        tflop_reference=77.6,
        pixels_reference=1024 * 1024,
        parameters_reference=17_105_733_184,
        vae_is_shifted=True,
    ),
)

"""HunyuanImage 2.1, real classes at toy size: guidance is a component, and words to be written choose another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.toy_newer import make_tiny_hunyuan_image
from support.toy_parts import loaded, pixels_of


def test_guidance_of_a_row_reaches_the_guider_that_its_prompt_chooses(tmp_path: Path) -> None:
    make_tiny_hunyuan_image(tmp_path)
    model = loaded({"path": str(tmp_path)})
    for prompt in ("a town", 'a sign that says "open"'):
        low, high, again = (
            pixels_of(model, route="HunyuanImagePipeline", prompt=prompt, guidance_scale=scale)
            for scale in (2.0, 6.0, 2.0)
        )
        assert np.abs(low - high).max() > 2 / 255, f"guidance moves nothing of {prompt!r}"
        assert np.array_equal(low, again), "the guidance of an earlier row stays"

"""Bounds of a model that its own places set: of frames in motion modules, of pixels in a denoiser that learned them.

family + configurations of a model's modules --> bounded() --> the family, as this model serves it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from sdbatch.families import Family

WITH_MOTION: Final = "UNetMotionModel"
"""Class of a UNet that has motion modules of its own, beside which no adapter is read."""

_PLACES_OF_MOTION: Final = "motion_max_seq_length"
"""Entry for the frames that motion modules have places for: 24 in AnimateDiff's first ones, 32 in others."""


def bounded(family: Family, laid_over: Collection[str], config: Callable[[str], Mapping[str, Any] | None]) -> Family:
    """Return a family with the bounds of one model, outside of which every row would fail.

    Args:
        family: The model's.
        laid_over: Names of the modules that its entry lays over it.
        config: Returns the configuration of a module by its name, None where the model has none.
    """
    if "motion_adapter" in laid_over or family.class_name.startswith("AnimateDiff"):
        has_own = (config(family.denoiser) or {}).get("_class_name") == WITH_MOTION
        modules = (family.denoiser if has_own else "motion_adapter", "controlnet")
        stated = [(config(module) or {}).get(_PLACES_OF_MOTION) for module in modules]
        return replace(family, frames_max=min([family.frames_max, *(one for one in stated if isinstance(one, int))]))
    if family.class_name == "CogVideoXImageToVideoPipeline":
        denoiser = config(family.denoiser) or {}
        sides = [denoiser.get(f"sample_{side}") for side in ("height", "width")]
        if denoiser.get("use_learned_positional_embeddings") is True and all(isinstance(side, int) for side in sides):
            factor = 2 ** (len((config("vae") or {}).get("block_out_channels", [0] * 4)) - 1)
            return replace(family, sizes=((sides[0] * factor, sides[1] * factor),))
    return family

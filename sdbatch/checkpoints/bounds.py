"""Bounds of a model that its own places set: of frames in motion modules, of pixels in a denoiser that learned them.

family + configurations of a model's modules --> bounded() --> the family, as this model serves it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from sdbatch.checkpoints.facts import vae_factor
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
        denoiser, pixels = config(family.denoiser) or {}, _pixels(config)
        height, width = (denoiser.get(f"sample_{side}") for side in ("height", "width"))
        is_learned = denoiser.get("use_learned_positional_embeddings") is True
        if is_learned and isinstance(height, int) and isinstance(width, int):
            return replace(family, sizes=((height * pixels, width * pixels),))
    if family.class_name == "StableDiffusion3Pipeline":
        denoiser = config(family.denoiser) or {}
        places, patch = denoiser.get("pos_embed_max_size"), denoiser.get("patch_size")
        if isinstance(places, int) and isinstance(patch, int):
            return replace(family, size_max=min(family.size_max, places * patch * _pixels(config)))
    return family


def _pixels(config: Callable[[str], Mapping[str, Any] | None]) -> int:
    """Return the pixels of a side that one place of a latent stands for."""
    channels = (config("vae") or {}).get("block_out_channels")
    return vae_factor(channels if isinstance(channels, list) else None)

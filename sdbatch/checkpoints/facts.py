"""Single facts that stand in the configs of a model's folder, each file read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdbatch.errors import ModelError
from sdbatch.families import Family

Fact = Callable[[str], Any]
"""Returns what stands at `FILE KEY` in the folder, None when nothing does."""


def facts_of(index: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]) -> Fact:
    """Return the function that looks facts up in a folder.

    Args:
        index: Content of its model_index.json.
        read: Returns the content of another of its files.
    """
    configs: dict[str, Mapping[str, Any]] = {"model_index.json": index}

    def fact(place: str) -> Any:
        file, _, key = place.partition(" ")
        if file not in configs:
            configs[file] = read(file)
        found = configs[file].get(key)
        return None if found == [None, None] else found  # so stands a component that a folder does without

    return fact


def own_guidance(family: Family, fact: Fact) -> dict[str, float]:
    """Return the guidance that a folder states for itself, by its column: that of its guider, where rows set that one.

    A model into which guidance was distilled has the class of the one that it was distilled from, and a guider of 1.
    """
    if all(route.arguments.get("guidance_scale") != "" for route in family.routes):
        return {}
    stated = fact("guider/guider_config.json guidance_scale")
    return {"guidance_scale": float(stated)} if isinstance(stated, int | float) else {}


def native_size(family: Family, fact: Fact) -> tuple[int, int]:
    """Return height and width the model was made for: the family's, or the denoiser's sample size times the VAE's.

    Raises:
        ModelError: When a configuration says no size.
    """
    if "height" in family.defaults:
        return family.defaults["height"], family.defaults["width"]
    sample = fact(f"{family.denoiser}/config.json sample_size") or 64
    sides = sample if isinstance(sample, list) else [sample, sample]
    if len(sides) != 2 or not all(isinstance(side, int | float) for side in sides):
        raise ModelError(f"{family.denoiser}/config.json says sample_size {sample!r}, which is no number")
    channels = fact("vae/config.json block_out_channels") or fact("vae/config.json encoder_block_out_channels")
    if not isinstance(channels, list | None):
        raise ModelError(f"vae/config.json says block_out_channels {channels!r}, which is no list")
    factor = vae_factor(channels)
    return int(sides[0]) * factor, int(sides[1]) * factor


def vae_factor(channels: Sequence[int] | None) -> int:
    """Return how many pixels of a side one place of a latent stands for.

    Args:
        channels: The VAE's `block_out_channels`, between each two of which it halves a side; None is taken for four.
    """
    return 1 << len(channels or [0] * 4) - 1

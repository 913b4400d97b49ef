"""Gives a LoRA's tensors names that diffusers' conversions read (0.42.1), where what stands around them is strange.

transformer_blocks.0.attn.to_q.lora_down.default.weight --> named_for() --> transformer. ... .to_q.lora_A.weight
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

import diffusers

_ADAPTER: Final = re.compile(r"(?<=\.lora_[AB])\.default(?=\.)")
"""Name of an adapter of peft's in the names of its factors."""

_KEY: Final = re.compile(r"(.+)\.(lora_(?:A|B|down|up|magnitude_vector)(?:\.weight|\.bias)?|alpha)")
_FACTORS: Final[Mapping[str, str]] = {"lora_down": "lora_A", "lora_up": "lora_B"}

_FLAT: Final = ("lora_transformer_", "lora_unet_", "lycoris_")
"""What stands before paths of modules whose dots were made underscores."""

_WITHOUT_PREFIX: Final = ("QwenImageLoraLoaderMixin", "ZImageLoraLoaderMixin")
"""Loaders that take names with alphas beside them for such without a prefix, and set one before them."""

_OF_WAN: Final = re.compile(r"blocks\.\d+\.(self_attn|cross_attn|ffn)\.")
"""Names of Wan's authors, which diffusers converts behind `diffusion_model.` alone."""


def named_for(pipeline: Any, denoiser: str, paths: Collection[str], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's tensors by the names that a pipeline's conversion reads.

    They are changed where each is that of a module of the denoiser, or of a text encoder that it names: such names say
    for certain what they mean. Others are left to the conversion.

    Args:
        pipeline: Pipeline that loads the LoRA.
        denoiser: Name of its denoiser.
        paths: Paths of the denoiser's modules.
        tensors: By their names in the file.
    """
    plain = {_ADAPTER.sub("", key): value for key, value in tensors.items()}
    if isinstance(pipeline, diffusers.loaders.WanLoraLoaderMixin) and all(_OF_WAN.match(key) for key in plain):
        return {f"diffusion_model.{key}": value for key, value in plain.items()}
    loaders = {cls.__name__ for cls in type(pipeline).__mro__}
    is_bare = not loaders.isdisjoint(_WITHOUT_PREFIX) and any(key.endswith(".alpha") for key in plain)
    modules = _by_every_name(denoiser, paths)
    named = {}
    for key, value in plain.items():
        found = _KEY.fullmatch(key)
        path = modules.get(found[1]) if found else None
        if found is not None and path is not None:
            factor, dot, rest = found[2].partition(".")
            bare = f"{path}.{_FACTORS.get(factor, factor)}{dot}{rest}"
            named[bare if is_bare else f"{denoiser}.{bare}"] = value
        elif key.startswith("text_encoder"):
            named[key] = value
        else:
            return plain
    return named


def _by_every_name(denoiser: str, paths: Collection[str]) -> dict[str, str]:
    """Return the paths of a denoiser's modules by all names that a LoRA's file may have for them."""
    dotted = {f"{prefix}{path}": path for path in paths for prefix in (f"{denoiser}.", "diffusion_model.", "")}
    flat = Counter(path.replace(".", "_") for path in paths)
    certain = {path.replace(".", "_"): path for path in paths if flat[path.replace(".", "_")] == 1}
    return {**{f"{prefix}{name}": path for name, path in certain.items() for prefix in _FLAT}, **dotted}

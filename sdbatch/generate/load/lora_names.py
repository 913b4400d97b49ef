"""Gives a LoRA's tensors names that diffusers' conversions read (0.42.1), where what stands around them is strange.

transformer_blocks.0.attn.to_q.lora_down.default.weight --> named_for() --> transformer. ... .to_q.lora_A.weight
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

_ADAPTER: Final = re.compile(r"(?<=\.lora_[AB])\.default(?=\.)")
"""Name of an adapter of peft's in the names of its factors."""

_KEY: Final = re.compile(
    r"(.+)\.(lora_(?:A|B|down|up|magnitude_vector)(?:\.weight|\.bias)?|lora\.(?:down|up)\.weight|alpha)"
)
_FACTORS: Final[Mapping[str, str]] = {"lora_down": "lora_A", "lora_up": "lora_B"}

_FLAT: Final = ("lora_transformer_", "lora_unet_", "lycoris_")
"""What stands before paths of modules whose dots were made underscores."""

_WITHOUT_PREFIX: Final = ("QwenImageLoraLoaderMixin", "ZImageLoraLoaderMixin")
"""Loaders that take names with alphas beside them for such without a prefix, and set one before them."""

_PREFIX: Final = r"(?:(?:model\.)?diffusion_model\.|base_model\.model\.|transformer\.)?"
"""What trainers set before names of a model's authors."""

_OF_WAN: Final = re.compile(
    rf"(?:{_PREFIX}|lora_unet_)(?:blocks[._](\d+)[._](self_attn|cross_attn|ffn)[._](q|k|v|o|k_img|v_img|0|2)|"
    r"(head)[._](head)|(text_embedding|time_embedding)[._](0|2)|(time_projection)[._](1)|(img_emb)[._](proj)[._](1|3))"
    r"(\.(?:lora_\w+\.weight|alpha|diff|diff_b))"
)
"""Names of Wan's authors, which diffusers converts behind `diffusion_model.` alone; those of musubi, whose dots were
made underscores, only where a file has all modules of each block."""
_BEFORE_WAN: Final = re.compile(_PREFIX)

_OF_FLUX: Final = re.compile(
    rf"(?:{_PREFIX}|lora_unet_)"
    r"((?:(?:double|single)_blocks|img_in|txt_in|time_in|vector_in|guidance_in|final_layer|(?:double|single)_stream_mod)"
    r"[\w.]*)\.(lora_A\.weight|lora_B\.weight|lora_down\.weight|lora_up\.weight|alpha)"
)
"""Names of Flux' authors, whatever stands before them. With `lora_A` and `lora_B` diffusers knows none of Flux.1's,
with `lora_down` or alphas those of kohya alone, whose dots were made underscores."""
_JOINED: Final = re.compile(r"(.+\.attention)\.(qkv|out)\.(lora_(?:A|B|down|up)\.weight|alpha)")
"""Names of Z-Image's authors for projections that diffusers has apart, or calls otherwise."""
_IS_KOHYA: Final = re.compile(r"^lora_unet_|\.lora_down\.|\.alpha$")
_OF_KOHYA: Final[Mapping[str, str]] = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}


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
    loaders = frozenset(cls.__name__ for cls in type(pipeline).__mro__)
    if "ZImageLoraLoaderMixin" in loaders:
        plain = _unjoined(plain)
    is_bare = not loaders.isdisjoint(_WITHOUT_PREFIX) and any(key.endswith(".alpha") for key in plain)
    of_peft = ("base_model.model.",) if "Flux2LoraLoaderMixin" in loaders else ()
    modules = _by_every_name(denoiser, paths, of_peft)
    named = {}
    for key, value in plain.items():
        found = _KEY.fullmatch(key)
        path = modules.get(found[1]) if found else None
        if found is not None and path is not None:
            factor, dot, rest = found[2].replace("lora.", "lora_").partition(".")
            bare = f"{path}.{_FACTORS.get(factor, factor)}{dot}{rest}"
            named[bare if is_bare else f"{denoiser}.{bare}"] = value
        elif key.startswith("text_encoder"):
            named[key] = value
        else:
            return _named_by_authors(plain, loaders)
    return named


def _unjoined(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of a LoRA of Z-Image with the projections apart that its authors joined."""
    named = {}
    for key, value in tensors.items():
        found = _JOINED.fullmatch(key)
        if found is None:
            named[key] = value
        elif found[2] == "out":
            named[f"{found[1]}.to_out.0.{found[3]}"] = value
        else:  # the second factor has the rows of all three; the first one, and alpha, are those of each
            is_second = found[3].startswith(("lora_B", "lora_up")) and value.ndim > 0
            parts = value.chunk(3) if is_second else (value, value, value)
            named |= {f"{found[1]}.to_{name}.{found[3]}": part for name, part in zip("qkv", parts, strict=False)}
    return named


def _named_by_authors(tensors: dict[str, Any], loaders: frozenset[str]) -> dict[str, Any]:
    """Return the tensors of a file that has the names of a model's authors as its conversion reads them."""
    if "WanLoraLoaderMixin" in loaders:
        return _named_as_wan(tensors)
    if "FluxLoraLoaderMixin" in loaders:
        return _named_as_flux(tensors, is_kohya=True)
    if "Flux2LoraLoaderMixin" in loaders:
        return _named_as_flux(tensors, is_kohya=any(_IS_KOHYA.search(key) for key in tensors))
    return tensors


def _named_as_wan(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of a LoRA of Wan with each name of its authors behind `diffusion_model.`."""
    found = {key: _OF_WAN.fullmatch(key) for key in tensors}
    named = {}
    for key, value in tensors.items():
        name = found[key]
        if name is not None:
            parts = [part for part in name.groups() if part]
            path = ".".join(["blocks", *parts[:-1]] if name[1] else parts[:-1]) + parts[-1]
        elif any(found.values()) and not key.startswith("lora_unet_"):
            path = _BEFORE_WAN.sub("", key, count=1)  # such as the change of a norm, which the conversion leaves out
        else:
            return tensors
        named[f"diffusion_model.{path}"] = value
    return named


def _named_as_flux(tensors: dict[str, Any], *, is_kohya: bool) -> dict[str, Any]:
    """Return the tensors of a LoRA of Flux whose names are all its authors', as kohya's scripts name them or dotted."""
    named = {}
    for key, value in tensors.items():
        name = _OF_FLUX.fullmatch(key)
        if name is None:
            return tensors
        path, factor = name[1], name[2]
        if is_kohya:
            named[f"lora_unet_{path.replace('.', '_')}.{_OF_KOHYA.get(factor, factor)}"] = value
        else:
            named[f"diffusion_model.{path}.{factor}"] = value
    return named


def _by_every_name(denoiser: str, paths: Collection[str], further: Sequence[str]) -> dict[str, str]:
    """Return the paths of a denoiser's modules by all names that a LoRA's file may have for them."""
    prefixes = (f"{denoiser}.", "diffusion_model.", "model.diffusion_model.", *further, "")
    dotted = {f"{prefix}{path}": path for path in paths for prefix in prefixes}
    flat = Counter(path.replace(".", "_") for path in paths)
    certain = {path.replace(".", "_"): path for path in paths if flat[path.replace(".", "_")] == 1}
    return {**{f"{prefix}{name}": path for name, path in certain.items() for prefix in _FLAT}, **dotted}

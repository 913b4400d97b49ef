"""Takes a module's tensors out of one file, as diffusers' converters read them (0.42.1).

    .safetensors, .gguf --> tensors_in() --> tensors_of_denoiser(), tensors_of_other() --> from_single_file

Files hold the rest of a model as well, under names that not every converter knows, and GGUF's are packed in places
where diffusers unpacks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_wan_vae_to_diffusers,
)
from safetensors.torch import load_file

from sdbatch.checkpoints.gguf import read_gguf
from sdbatch.checkpoints.layouts import OTHERS, PREFIX, behind_prefix
from sdbatch.storage import open_store

Tensors = dict[str, torch.Tensor]

READ_AS: Final = {"img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed"}
"""Names of tensors that diffusers' converters leave as they are and nothing reads (0.42.1), with those it reads."""

_OF_WAN_22: Final = re.compile(
    r"(encoder|decoder)\.(down|up)samples\.(\d+)\.\2samples\.(\d+)\.(residual\.\d|[^.]+)(.*)"
)
"""Names of the blocks in Wan 2.2's VAE by its authors, which diffusers' converter of Wan's leaves as they are."""
_PARTS_OF_WAN_22: Final[Mapping[str, str]] = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
"""Parts of a block that does not change the size, and what diffusers calls them."""

_OF_FIRST_VAES: Final = "decoder.norm_out.weight"
"""A tensor of every VAE by the names of the authors of Stable Diffusion, which those of Flux.2 have kept."""
_OF_KL: Final = re.compile(
    r"(?:first_stage_model\.|vae\.)?(?=(?:encoder|decoder)\.mid_block\.attentions\.0\.group_norm\.)"
)
"""Beginning of a tensor of every VAE of Stable Diffusion by diffusers' names."""
_ATTENDS: Final = re.compile(r"(?<=\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)(?=\.)")
_ATTENDS_BY_AUTHORS: Final = re.compile(r"(?<=\.mid\.attn_1)\.to_(q|k|v|out\.0)(?=\.)")
_IN_ITS_ATTENTION: Final[Mapping[str, str]] = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
    "out.0": "proj_out",
}
"""Parts of its attention by diffusers' first names, with the later ones; and the last of these by the authors' names,
which a script of diffusers' once left as it was."""
_QUANTS: Final = re.compile(r"^(?:encoder|decoder)\.((?:post_)?quant_conv\.)")
"""Names of two layers in Flux.2's VAE that stand beside its halves elsewhere."""

_OF_UNETS: Final = "input_blocks.0.0.weight"
"""A tensor of every UNet by its authors' names."""

_OF_SIZES: Final = ("label_emb.0.0.", "label_emb.0.2.")
"""Names of two layers of XL's nets that read a picture's sizes and pooled text, by their authors' names."""

_MADE_ANEW: Final = ".pos_encoder.pe"
"""End of the names of tables of frames in a motion adapter by its authors' names, which diffusers makes by itself."""

_OF_OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "controlnet": ("control_model.",),
    "vae": ("first_stage_model.", "vae."),
}
"""What stands before the names of a module's tensors in a file that holds others beside it."""


def tensors_in(path: Path) -> Tensors:
    """Return the tensors of a file; those of GGUF are packed as they are in it.

    ComfyUI's tools keep tensors of UNets in rows of 256 numbers, so that every type of blocks fits; such a row is none
    of the tensor's, and so these are unpacked.
    """
    if path.suffix != ".gguf":
        return load_file(path)
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    tensors: Tensors = load_gguf_checkpoint(str(path))
    for name, shape in read_gguf(open_store(str(path.parent), {}), path.name).reshaped.items():
        tensors[name] = dequantize_gguf_tensor(tensors[name]).reshape(shape)
    return tensors


def tensors_of_denoiser(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a denoiser's tensors by the names that diffusers' converters read (0.42.1).

    Of transformers every converter reads names without a prefix, and some no others; that of UNets reads the authors'
    names with a prefix alone.

    Args:
        weights: All tensors of a file, which may hold the rest of a model as well.
    """
    own = behind_prefix(weights) or {key: value for key, value in weights.items() if not key.startswith(OTHERS)}
    named = {READ_AS.get(key, key): value for key, value in own.items()}
    return {f"{PREFIX}{key}": value for key, value in named.items()} if _OF_UNETS in named else named


def tensors_of_other(module: str, weights: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors of another module.

    Args:
        module: Its name.
        weights: All tensors of a file, which may hold the rest of a model as well.
    """
    before = next((before for name, before in _OF_OTHERS.items() if name in module), ())
    own = {key: value for key, value in weights.items() if key.startswith(before)}
    own = own or {key: value for key, value in weights.items() if not key.startswith(OTHERS)}
    if module == "vae":
        own = _of_kl(own)
    return {_OF_WAN_22.sub(_in_diffusers, key): value for key, value in own.items() if not key.endswith(_MADE_ANEW)}


def converts_no_vae(names: Iterable[str]) -> bool:
    """Whether a file holds a VAE by names that diffusers' converter of whole models does not read."""
    return any(_ATTENDS_BY_AUTHORS.search(name) for name in names)


def _of_kl(tensors: Tensors) -> Tensors:
    """Return the tensors of a VAE of Stable Diffusion by names that diffusers reads; those of another as they are."""
    before = next((found[0] for found in map(_OF_KL.match, tensors) if found), "")

    def named(key: str) -> str:
        bare = _ATTENDS.sub(lambda found: f".{_IN_ITS_ATTENTION[found[1]]}", key.removeprefix(before))
        return _ATTENDS_BY_AUTHORS.sub(lambda found: f".{_IN_ITS_ATTENTION.get(found[1], found[1])}", bare)

    return {named(key): value for key, value in tensors.items()}


def in_diffusers_names(class_name: str, tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Return the tensors of a module that diffusers reads from no single file by itself, by its names for them.

    Args:
        class_name: Class of the module.
        tensors: By its authors' names, or by diffusers' already.
        config: Its configuration.
    """
    tensors = behind_prefix(tensors, [before for prefixes in _OF_OTHERS.values() for before in prefixes]) or tensors
    if class_name == "AutoencoderKLQwenImage":  # its authors' files have the names of Wan's
        return dict(convert_wan_vae_to_diffusers(tensors))
    if class_name == "AutoencoderKLFlux2" and _OF_FIRST_VAES in tensors:
        named = {_QUANTS.sub(r"\1", key): value for key, value in tensors.items()}
        norms = {key: value for key, value in tensors.items() if key.startswith("bn.")}
        return {**norms, **convert_ldm_vae_checkpoint(named, config)}
    return tensors


def controlnet_in_diffusers_names(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Return the tensors of a ControlNet of Stable Diffusion XL by diffusers' names; those of another as they are.

    diffusers converts them by their authors' names without the two layers that read sizes and pooled texts.

    Args:
        tensors: Of the net.
        config: Its configuration.
    """
    bare = behind_prefix(tensors, _OF_OTHERS["controlnet"]) or tensors
    sizes = {key: value for key, value in bare.items() if key.startswith(_OF_SIZES)}
    if not sizes or config.get("addition_embed_type") is None:
        return tensors
    named = {f"add_embedding.linear_{1 + int(key.split('.')[2]) // 2}.{key.split('.')[3]}": sizes[key] for key in sizes}
    return {**convert_controlnet_checkpoint(bare, config), **named}


def _in_diffusers(found: re.Match[str]) -> str:
    coder, way, block, number, part, rest = found.groups()
    inside = f"resnets.{number}.{_PARTS_OF_WAN_22[part]}" if part in _PARTS_OF_WAN_22 else f"{way}sampler.{part}"
    return f"{coder}.{way}_blocks.{block}.{inside}{rest}"


def made_in(plain: Any, dtype: torch.dtype) -> Any:
    """Return a class of diffusers whose modules have the numbers that its `from_pretrained` gives them.

    `from_single_file` casts whole modules (0.42.1): Wan's time, norms and rotations, which are kept in float32 where it
    is read from a folder, would lie in 16 bits.

    Args:
        plain: The class.
        dtype: Numbers that it is run in.
    """

    class Made(plain):  # type: ignore[misc]
        @classmethod
        def from_config(cls, *args: Any, **kwargs: Any) -> Any:
            module = plain.from_config(*args, **kwargs)
            stored = module.state_dict().keys()
            for name, value in (*module.named_parameters(), *module.named_buffers()):
                if name in stored and value.is_floating_point():
                    value.data = value.data.to(_dtype_of(module, name, dtype))
            return module

    return Made


def _dtype_of(module: torch.nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the numbers of one weight of a module that is run in some."""
    kept: Collection[str] = getattr(module, "_keep_in_fp32_modules", None) or ()
    return dtype if set(kept).isdisjoint(name.split(".")) else torch.float32


def unpack_outside_linear(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Unpack, in place, what lies packed outside the weights of linear layers: nothing else unpacks when it is called.

    Args:
        module: Module that was read from a GGUF file.
        dtype: Numbers that it is run in.
    """
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    for path, layer in module.named_modules():
        for name, weight in layer.named_parameters(recurse=False):
            if isinstance(weight, GGUFParameter) and not (isinstance(layer, GGUFLinear) and name == "weight"):
                plain = dequantize_gguf_tensor(weight).to(_dtype_of(module, f"{path}.{name}", dtype))
                layer.register_parameter(name, torch.nn.Parameter(plain, requires_grad=False))

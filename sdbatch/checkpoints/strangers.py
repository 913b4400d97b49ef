"""Files that are weights and yet no checkpoint: what each is, and where a job names it.

names of tensors --> what_else() --> what the file is, and what to do
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Final

from sdbatch.checkpoints.layouts import Keys

ENDINGS: Final = {
    ".ckpt": "is a pickle, which can run code and is never opened; take the .safetensors file of this model",
    ".pt": "is a pickle, which can run code and is never opened; take the .safetensors file of this model",
    ".pth": "is a pickle, which can run code and is never opened; take the .safetensors file of this model",
    ".bin": "is a pickle, which can run code and is never opened; take the .safetensors file of this model",
    ".gguf": (
        "holds the denoiser alone; name the model's folder as path and this file as components.transformer (or unet)"
    ),
    ".sft": "is a safetensors file by another ending; call it .safetensors",
    ".safetensors.index.json": "is an index of shards; name the folder that they lie in, or one file with all weights",
    ".onnx": "is for another runtime; take the .safetensors file of this model, or its folder in diffusers' layout",
}
"""Endings of files that are no single-file checkpoint by their name, and what to say of them."""

# Each line: what tells it in the names, what it is, and what to do. The first that holds counts.
_LORA: Final = re.compile(
    r"\.(lora_(up|down|A|B|a|b)\b|lora\.(up|down)\.|hada_w|lokr_w|oft_|dora_scale)|^lora_(unet|te)"
)
_SCALED: Final = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant)$")
_PACKED: Final = re.compile(r"\.(absmax|quant_map|quant_state\..*|qweight|wscales|qzeros|weight_packed)$")


def _any(expression: re.Pattern[str]) -> Callable[[Collection[str]], bool]:
    return lambda names: any(expression.search(name) for name in names)


def _has(*beginnings: str) -> Callable[[Collection[str]], bool]:
    return lambda names: all(any(name.startswith(beginning) for name in names) for beginning in beginnings)


_PARTS: Final[tuple[tuple[Callable[[Collection[str]], bool], str, str], ...]] = (
    (_any(_LORA), "a LoRA", "name it under the job's loras"),
    (_has("control_model."), "a ControlNet", "name it as the entry's controlnet"),
    (_has("controlnet_cond_embedding."), "a ControlNet", "name it as the entry's controlnet"),
    (_any(re.compile(r"motion_modules\.0\.")), "a motion adapter", "name it as the entry's motion_adapter"),
    (_has("image_proj.", "ip_adapter."), "an IP-Adapter", "it is no model of its own"),
    (
        _any(re.compile(r"^(emb_params|clip_[lg]|string_to_param.*)$")),
        "a textual inversion",
        "it is no model of its own",
    ),
)
"""Files that stand beside a model."""

_MODULES: Final[tuple[tuple[Callable[[Collection[str]], bool], str, str], ...]] = (
    (_has("first_stage_model."), "a VAE", "name it as components.vae of the model it belongs to"),
    (_has("decoder.", "encoder."), "a VAE", "name it as components.vae of the model it belongs to"),
    (_has("vae."), "a VAE", "name it as components.vae of the model it belongs to"),
    *(
        (_has(beginning), "a text encoder", "name it as components.text_encoder (or _2, _3) of the model it belongs to")
        for beginning in (
            "text_model.",
            "encoder.block.",
            "model.layers.",
            "transformer.text_model.",
            "cond_stage_model.",
        )
    ),
    *(
        (_has(beginning), "one module in diffusers' layout", "name its whole folder, or it as a component of one")
        for beginning in ("down_blocks.", "transformer_blocks.", "blocks.", "single_transformer_blocks.", "layers.")
    ),
)
"""Modules of a model, asked for only where the file holds no denoiser that is known."""


def beside_a_model(names: Iterable[str]) -> str:
    """Return what a file is that stands beside a model, with what to do; "" for any other."""
    return _first(_PARTS, tuple(names))


def module_of_a_model(names: Iterable[str]) -> str:
    """Return which module of a model a file is, with what to do; "" for any other."""
    return _first(_MODULES, tuple(names))


def quantised(keys: Keys) -> str:
    """Return how a file's weights are quantised in a form that the loader would misread; "" for any other.

    diffusers passes over the scales that stand beside such weights, and the pictures would be noise.
    """
    if any(_SCALED.search(name) for name in keys.shapes):
        return (
            "holds weights with scales beside them, which diffusers does not apply; take the file in 16 bit, "
            "in plain float8, or as GGUF, or quantise it with quantize:"
        )
    if any(_PACKED.search(name) for name in keys.shapes):
        return (
            "holds packed 4 or 8 bit weights, which diffusers does not read from a single file; "
            "take the file in 16 bit or as GGUF, or quantise it with quantize:"
        )
    return ""


def _first(rows: Iterable[tuple[Callable[[Collection[str]], bool], str, str]], names: Collection[str]) -> str:
    return next((f"is {what}; {remedy}" for holds, what, remedy in rows if holds(names)), "")

"""Files that are weights and yet no checkpoint: what each is, and where a job names it.

names of tensors --> what_else() --> what the file is, and what to do
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

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


_WHOLE_NUMBERS: Final = frozenset({"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})


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


def quantised(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how weights are quantised in a form that a loader would misread; "" for any others.

    The libraries pass over the scales that stand beside such weights, and the pictures would be noise.

    Args:
        tensors: Of a file that no configuration calls quantised; see `Header`.
    """
    if any(_SCALED.search(name) for name in tensors):
        return (
            "holds weights with scales beside them, which diffusers does not apply; take the file in 16 bit, "
            "in plain float8, or as GGUF, or quantise it with quantize:"
        )
    if any(_PACKED.search(name) for name in tensors):
        return (
            "holds packed 4 or 8 bit weights, which are not read without a config.json that says how; "
            "take the file in 16 bit or as GGUF, or quantise it with quantize:"
        )
    for name, tensor in tensors.items():
        if name.endswith(".weight") and len(tensor["shape"]) > 1 and tensor["dtype"] in _WHOLE_NUMBERS:
            return (
                f"holds weights in whole numbers ({name} in {tensor['dtype']}), which would be taken for the weights "
                "that they stand for; take the file in 16 bit or as GGUF, or quantise it with quantize:"
            )
    return ""


def _first(rows: Iterable[tuple[Callable[[Collection[str]], bool], str, str]], names: Collection[str]) -> str:
    return next((f"is {what}; {remedy}" for holds, what, remedy in rows if holds(names)), "")

"""Lets modules of different number formats work in one pipeline: each casts what it is given to its own.

Pipelines of diffusers take the format of one module for that of all. A VAE in float32 beside a denoiser in bfloat16, or
text encoders in another format, would be given numbers that their layers do not multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

_FLOATS: Final = frozenset({torch.float32, torch.float16, torch.bfloat16})
_PLACES: Final = ("timestep", "guidance", "time_ids", "img_ids", "txt_ids", "image_rotary_emb", "added_time_ids")
"""Arguments that say a place or a time, which few bits would blur; the modules cast them where they use them."""


def cast_inputs(modules: Mapping[str, Any]) -> None:
    """Let denoisers, ControlNets and VAEs cast their inputs, by hooks that stay.

    Args:
        modules: All modules of a model, by name.
    """
    for name, module in modules.items():
        if not isinstance(module, torch.nn.Module):
            continue
        if name.startswith(("unet", "transformer", "controlnet")):
            own: Any = module
            module.register_forward_pre_hook(_CastTo(own.dtype), with_kwargs=True)
        elif name.endswith("vae"):
            for part in module.children():  # `encode` and `decode` are no forward pass; their parts are
                if (dtype := _dtype_of(part)) is not None:
                    part.register_forward_pre_hook(_CastTo(dtype, part), with_kwargs=True)


def _dtype_of(module: torch.nn.Module) -> torch.dtype | None:
    return next((weight.dtype for weight in module.parameters() if weight.dtype in _FLOATS), None)


class _CastTo:
    """Casts the arguments of a forward pass.

    Args:
        dtype: Format to cast to.
        part: Module whose weights say the format anew at every call: SDXL widens its VAE for one decode.
    """

    def __init__(self, dtype: torch.dtype, part: torch.nn.Module | None = None) -> None:
        self._dtype = dtype
        self._follows = part is not None

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        dtype = (_dtype_of(module) if self._follows else None) or self._dtype
        return _cast(args, dtype), _cast(kwargs, dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.dtype in _FLOATS and value.ndim > 1 else value
    if isinstance(value, dict):
        return {key: member if key in _PLACES else _cast(member, dtype) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cast(member, dtype) for member in value)
    return value

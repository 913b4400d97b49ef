"""The arguments of one pass of a denoiser, for one row, by its class: what its memory is counted with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

TEXT_TOKENS = 512
"""Tokens of a prompt; CLIP has 77, and others up to a thousand, which are few beside those of pixels."""


def _empty(denoiser: Any, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    weights = next(denoiser.parameters())
    return torch.empty(*shape, dtype=dtype or weights.dtype, device=weights.device)


def _unet(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    _, height, width = latents
    more: dict[str, Any] = {}
    own: dict[str, Any] = {}
    if denoiser.config["num_class_embeds"]:
        own["class_labels"] = _empty(denoiser, 1, dtype=torch.long)
    if denoiser.config["time_cond_proj_dim"]:
        own["timestep_cond"] = _empty(denoiser, 1, denoiser.config["time_cond_proj_dim"])
    if denoiser.config["addition_embed_type"] == "text_time":
        times = 6 * denoiser.config["addition_time_embed_dim"]
        pooled = denoiser.config["projection_class_embeddings_input_dim"] - times
        more = {"text_embeds": _empty(denoiser, 1, pooled), "time_ids": _empty(denoiser, 1, 6)}
    return {
        "sample": _empty(denoiser, 1, denoiser.config["in_channels"], height, width),
        "timestep": _empty(denoiser, 1),
        "encoder_hidden_states": _empty(denoiser, 1, 77, denoiser.config["cross_attention_dim"]),
        **own,
        **({"added_cond_kwargs": more} if more else {}),
    }


def _flux(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    tokens = latents[-1] * latents[-2] // 4
    config = denoiser.config
    axes = len(config["axes_dims_rope"])
    pooled = config.get("pooled_projection_dim")
    return {
        "hidden_states": _empty(denoiser, 1, tokens, config["in_channels"]),
        "timestep": _empty(denoiser, 1),
        "encoder_hidden_states": _empty(denoiser, 1, TEXT_TOKENS, config["joint_attention_dim"]),
        "img_ids": _empty(denoiser, tokens, axes),
        "txt_ids": _empty(denoiser, TEXT_TOKENS, axes),
        **({"pooled_projections": _empty(denoiser, 1, pooled)} if pooled else {}),
        **({"guidance": _empty(denoiser, 1)} if config.get("guidance_embeds") else {}),
    }


def _qwen(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    height, width = latents[-2] // 2, latents[-1] // 2
    return {
        "hidden_states": _empty(denoiser, 1, height * width, denoiser.config["in_channels"]),
        "encoder_hidden_states": _empty(denoiser, 1, TEXT_TOKENS, denoiser.config["joint_attention_dim"]),
        "encoder_hidden_states_mask": None,
        "timestep": _empty(denoiser, 1),
        "img_shapes": [[(1, height, width)]],
    }


def _sd3(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    config = denoiser.config
    return {
        "hidden_states": _empty(denoiser, 1, *latents),
        "encoder_hidden_states": _empty(denoiser, 1, 333, config["joint_attention_dim"]),
        "pooled_projections": _empty(denoiser, 1, config["pooled_projection_dim"]),
        "timestep": _empty(denoiser, 1),
    }


def _wan(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    _, *sides = latents
    config = denoiser.config
    image = config["image_dim"]
    return {
        "hidden_states": _empty(denoiser, 1, config["in_channels"], *sides),
        "timestep": _empty(denoiser, 1),
        "encoder_hidden_states": _empty(denoiser, 1, TEXT_TOKENS, config["text_dim"]),
        **({"encoder_hidden_states_image": _empty(denoiser, 1, 257, image)} if image else {}),
    }


def _ltx(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    channels, frames, height, width = latents
    return {
        "hidden_states": _empty(denoiser, 1, frames * height * width, channels),
        "encoder_hidden_states": _empty(denoiser, 1, 128, denoiser.config["caption_channels"]),
        "timestep": _empty(denoiser, 1),
        "encoder_attention_mask": _empty(denoiser, 1, 128),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def _cogvideox(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    _, *sides = latents
    frames, height, width = sides
    config = denoiser.config
    rotary = None
    if config["use_rotary_positional_embeddings"]:
        tokens = frames * height * width // 4
        rotary = (_empty(denoiser, tokens, config["attention_head_dim"]),) * 2
    return {
        "hidden_states": _empty(denoiser, 1, frames, config["in_channels"], height, width),
        "encoder_hidden_states": _empty(denoiser, 1, config["max_text_seq_length"], config["text_embed_dim"]),
        "timestep": _empty(denoiser, 1),
        "image_rotary_emb": rotary,
    }


def _sana(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    return {
        "hidden_states": _empty(denoiser, 1, *latents),
        "encoder_hidden_states": _empty(denoiser, 1, 300, denoiser.config["caption_channels"]),
        "timestep": _empty(denoiser, 1),
        "encoder_attention_mask": _empty(denoiser, 1, 300),
    }


def _aura_flow(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    return {
        "hidden_states": _empty(denoiser, 1, *latents),
        "encoder_hidden_states": _empty(denoiser, 1, 256, denoiser.config["joint_attention_dim"]),
        "timestep": _empty(denoiser, 1),
    }


def _kandinsky(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    channels, *frames, height, width = latents
    times = frames[0] if frames else 1
    config = denoiser.config
    given = 2 * channels + 1 if config["visual_cond"] else channels
    places = [torch.arange(side) for side in (times, height // 2, width // 2)]
    return {
        "hidden_states": _empty(denoiser, 1, times, height, width, given),
        "encoder_hidden_states": _empty(denoiser, 1, TEXT_TOKENS, config["in_text_dim"]),
        "timestep": _empty(denoiser, 1),
        "pooled_projections": _empty(denoiser, 1, config["in_text_dim2"]),
        "visual_rope_pos": places,
        "text_rope_pos": torch.arange(TEXT_TOKENS),
    }


PASSES: Mapping[str, Callable[[Any, tuple[int, ...]], dict[str, Any]]] = {
    "AuraFlowTransformer2DModel": _aura_flow,
    "UNet2DConditionModel": _unet,
    "ChromaTransformer2DModel": _flux,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux,
    "Kandinsky5Transformer3DModel": _kandinsky,
    "QwenImageTransformer2DModel": _qwen,
    "SD3Transformer2DModel": _sd3,
    "WanTransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _ltx,
    "CogVideoXTransformer3DModel": _cogvideox,
    "SanaTransformer2DModel": _sana,
}
"""Arguments by the denoiser's class: the module and the shape of one row's latents go in."""


def pass_of(denoiser: Any, latents: tuple[int, ...]) -> dict[str, Any]:
    """Return the arguments of one call of a denoiser.

    Args:
        denoiser: The module.
        latents: Shape of one row's.

    Raises:
        ValueError: When its class has no row in `PASSES`.
    """
    name = type(denoiser).__name__
    if name not in PASSES:
        raise ValueError(f"no call of {name} is known: add a row to PASSES in benchmarks/passes.py")
    return PASSES[name](denoiser, latents)

"""Tiny IP-Adapters in diffusers' layout: seeded random weights beside a tiny image encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE = 16
"""Pixels of a picture that the image encoder reads."""

_WIDTH = 16
"""Width of an embedding."""


def make_tiny_ip_adapter(folder: Path, denoiser: Any, *, is_plus: bool = False) -> Path:
    """Write an IP-Adapter for a denoiser; return its file of weights.

    Args:
        folder: Where it is written.
        denoiser: UNet or Flux transformer.
        is_plus: Whether it reads the encoder's layers, as IP-Adapter Plus does.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        projection_dim=_WIDTH,
        initializer_range=0.3,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder", safe_serialization=True)
    is_flux = type(denoiser).__name__.startswith("Flux")
    width = denoiser.config.joint_attention_dim if is_flux else denoiser.config.cross_attention_dim
    tensors = _plus_projection(width) if is_plus else _projection(width)
    read = [processor for name, processor in _readers(denoiser).items()]
    for number, hidden in enumerate(read):
        for part in ("k", "v"):
            weight = torch.randn(hidden, width)
            if is_flux:
                start = f"double_blocks.{number}.processor.ip_adapter_double_stream_{part}_proj"
                tensors[f"{start}.weight"], tensors[f"{start}.bias"] = weight, torch.zeros(hidden)
            else:
                tensors[f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight"] = weight
    path = folder / "ip-adapter_tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def _readers(denoiser: Any) -> dict[str, int]:
    """Return, by the name of each attention that an adapter reads beside, how wide it is."""
    modules = dict(denoiser.named_modules())
    names = [name.removesuffix(".processor") for name in denoiser.attn_processors]
    chosen = [name for name in names if not name.startswith("single") and not name.endswith("attn1")]
    return {name: modules[name].to_q.out_features for name in chosen}


def _projection(width: int) -> dict[str, Any]:
    import torch

    return {
        "image_proj.proj.weight": torch.randn(4 * width, _WIDTH),
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }


def _plus_projection(width: int) -> dict[str, Any]:
    import torch

    inner = 64
    shapes = {
        "latents": (1, 4, inner),
        "proj_in.weight": (inner, 32),
        "proj_in.bias": (inner,),
        "proj_out.weight": (width, inner),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for layer in range(4):
        shapes |= {
            f"layers.{layer}.0.norm1.weight": (inner,),
            f"layers.{layer}.0.norm1.bias": (inner,),
            f"layers.{layer}.0.norm2.weight": (inner,),
            f"layers.{layer}.0.norm2.bias": (inner,),
            f"layers.{layer}.0.to_q.weight": (inner, inner),
            f"layers.{layer}.0.to_kv.weight": (2 * inner, inner),
            f"layers.{layer}.0.to_out.weight": (inner, inner),
            f"layers.{layer}.1.0.weight": (inner,),
            f"layers.{layer}.1.0.bias": (inner,),
            f"layers.{layer}.1.1.weight": (4 * inner, inner),
            f"layers.{layer}.1.3.weight": (inner, 4 * inner),
        }
    return {f"image_proj.{name}": torch.randn(shape) * 0.5 for name, shape in shapes.items()}

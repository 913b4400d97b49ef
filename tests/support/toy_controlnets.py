"""Tiny ControlNets of real diffusers classes, for the models of `toy_models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.toy_models import XL_CONTROLNET, enliven, save_controlnet


def _saved(module: Any, folder: Path) -> None:
    enliven(module)
    module.save_pretrained(folder, safe_serialization=True)


def make_tiny_union_controlnet(folder: Path) -> None:
    """Write a ControlNet of six kinds for `make_tiny_sdxl`'s model."""
    import torch
    from diffusers import ControlNetUnionModel

    torch.manual_seed(1)
    heads = {"num_trans_channel": 16, "num_trans_head": 2, "num_proj_channel": 16}
    save_controlnet(ControlNetUnionModel(**XL_CONTROLNET, **heads), folder)


def make_tiny_flux_controlnet(folder: Path, seed: int = 1, *, num_kinds: int | None = None) -> None:
    """Write a ControlNet for `make_tiny_flux`'s model, of one kind or of several."""
    import torch
    from diffusers import FluxControlNetModel

    torch.manual_seed(seed)
    _saved(
        FluxControlNetModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 6, 6],
            num_mode=num_kinds,
        ),
        folder,
    )


def make_tiny_sd3_controlnet(folder: Path, seed: int = 1, *, mask_channels: int = 0) -> None:
    """Write a ControlNet for `make_tiny_sd3`'s model; with a channel for a mask it paints."""
    import torch
    from diffusers import SD3ControlNetModel

    torch.manual_seed(seed)
    _saved(
        SD3ControlNetModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=16,
            pos_embed_max_size=16,
            extra_conditioning_channels=mask_channels,
        ),
        folder,
    )


def make_tiny_qwen_controlnet(folder: Path, *, mask_channels: int = 0) -> None:
    """Write a ControlNet for `make_tiny_qwen`'s model; with channels for a mask, of 2 x 2 latents, it paints."""
    import torch
    from diffusers import QwenImageControlNetModel

    torch.manual_seed(1)
    _saved(
        QwenImageControlNetModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
            extra_condition_channels=mask_channels,
        ),
        folder,
    )


def make_tiny_zimage_controlnet(folder: Path) -> None:
    """Write a ControlNet for `make_tiny_zimage`'s model; it reads a mask and a source beside the picture."""
    import torch
    from diffusers import ZImageControlNetModel

    torch.manual_seed(1)
    _saved(
        ZImageControlNetModel(
            control_layers_places=[0],
            control_refiner_layers_places=[0],
            control_in_dim=4 + 1 + 4,
            add_control_noise_refiner="control_noise_refiner",
            dim=32,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
        ),
        folder,
    )

"""Tiny ControlNets of real diffusers classes, for the models of `toy_models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.toy_models import enliven


def _saved(module: Any, folder: Path) -> None:
    enliven(module)
    module.save_pretrained(folder, safe_serialization=True)


def make_tiny_union_controlnet(folder: Path) -> None:
    """Write a ControlNet of six kinds for `make_tiny_sdxl`'s model."""
    import torch
    from diffusers import ControlNetUnionModel

    torch.manual_seed(1)
    net = ControlNetUnionModel(
        in_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
        use_linear_projection=True,
        norm_num_groups=8,
        conditioning_embedding_out_channels=(8, 16),
        num_trans_channel=16,
        num_trans_head=2,
        num_proj_channel=16,
    )
    enliven(net)
    with torch.no_grad():  # else its pictures drown beside the latents
        net.controlnet_cond_embedding.conv_out.weight.mul_(30)
    net.save_pretrained(folder, safe_serialization=True)


def make_tiny_flux_controlnet(folder: Path, seed: int = 1) -> None:
    """Write a ControlNet for `make_tiny_flux`'s model."""
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
        ),
        folder,
    )


def make_tiny_sd3_controlnet(folder: Path, seed: int = 1) -> None:
    """Write a ControlNet for `make_tiny_sd3`'s model."""
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
        ),
        folder,
    )


def make_tiny_qwen_controlnet(folder: Path) -> None:
    """Write a ControlNet for `make_tiny_qwen`'s model."""
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

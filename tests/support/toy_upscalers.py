"""Tiny models that enlarge, of real diffusers classes."""

from __future__ import annotations

from pathlib import Path

from support.toy_models import enliven


def make_tiny_x4_upscaler(folder: Path) -> None:
    """Write a folder of the x4 upscaler; its denoiser sees some 20 pixels around each."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionUpscalePipeline
    from transformers import CLIPTextModel

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config, tiny_unet

    torch.manual_seed(0)
    unet = tiny_unet(in_channels=7, only_cross_attention=(True, True), num_class_embeds=100, use_linear_projection=True)
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=0.08333,
    )
    enliven(unet)
    enliven(vae)
    with torch.no_grad():  # else the decoder turns every latent over this factor into black or white
        vae.decoder.conv_in.weight.mul_(0.08333)
    StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(tiny_text_config()),
        tokenizer=byte_tokenizer(),
        unet=unet,
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear", num_train_timesteps=100),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False),
        max_noise_level=90,
    ).save_pretrained(folder, safe_serialization=True)


def make_tiny_latent_upscaler(folder: Path) -> None:
    """Write a folder of the x2 upscaler of latents."""
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionLatentUpscalePipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        time_cond_proj_dim=128 + 32,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=32,
        down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3),
        in_channels=8,
        mid_block_type=None,
        only_cross_attention=False,
        out_channels=5,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=1.0,
    )
    enliven(unet)
    enliven(vae)
    StableDiffusionLatentUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(tiny_text_config()),
        tokenizer=byte_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="sample"),
    ).save_pretrained(folder, safe_serialization=True)

"""The benchmarks' own model: real Stable Diffusion classes, a denoiser of 18 thousand parameters, 64 px.

    make(folder) --> a StableDiffusionPipeline folder, random weights of a fixed seed, the same on every machine

So small that whatever is not the model shows: a row costs about 12 CPU ms in a batch of 16. Fixed for good: figures of
two runs are comparable only while it stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.settings import SEED, SIZE_PX

UNET_PARAMETERS = 18_464


def make(folder: Path, seed: int = SEED) -> Path:
    """Write the model to `folder` and return it; another seed gives other weights.

    Raises:
        ValueError: When the denoiser is no longer the one that figures were measured with.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=vae(),
            text_encoder=CLIPTextModel(text_config()),
            tokenizer=letter_tokenizer(),
            unet=unet(),
            scheduler=DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    count = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    if count != UNET_PARAMETERS:
        raise ValueError(f"the benchmark's denoiser has {count} parameters, not {UNET_PARAMETERS}")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def letter_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer whose words are single letters of its byte alphabet: no vocabulary file needed."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def text_config() -> CLIPTextConfig:
    """Return the settings of the text encoder."""
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=32,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def unet() -> UNet2DConditionModel:
    """Return the denoiser."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=2,
    )


def vae() -> AutoencoderKL:
    """Return the VAE."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=2,
        sample_size=SIZE_PX,
    )

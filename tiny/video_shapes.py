"""The parts of tiny-video, untrained: an LTX of real classes, small.

    8 x 8 pixels of 2 frames --> 1 latent of LATENT_CHANNELS; the first frame, or a picture, is a latent frame alone

A clip of 17 frames is 9 x 8 x 8 latents. Less is not possible in time: diffusers 0.42's LTXConditionPipeline asks that
frames modulo compression be 1, which refuses every picture at a compression of 1.
"""

from __future__ import annotations

from typing import Final

from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from tiny import captions, moving

LATENT_CHANNELS: Final = 44
PIXELS_PER_LATENT: Final = 8
FRAMES_PER_LATENT: Final = 2
TOKENS_MAX: Final = 64
PATCH_SIZE: Final = 4
PATCH_CHANNELS: Final = 3 * PATCH_SIZE**2
"""Channels everywhere in the autoencoder: as many as a patch has values, so that a patch can pass as it is."""
_TEXT_WIDTH: Final = 96


def autoencoder() -> AutoencoderKLLTXVideo:
    """Return the autoencoder: patches of 4 x 4 pixels, halved once in space and time; it looks back only.

    Its encoder has no layers in between, so that principal.py can fit it without training.
    """
    return AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(PATCH_CHANNELS,),
        down_block_types=("LTXVideoDownBlock3D",),
        layers_per_block=(0, 0),
        spatio_temporal_scaling=(True,),
        decoder_block_out_channels=(PATCH_CHANNELS,),
        decoder_layers_per_block=(2, 1),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=PATCH_SIZE,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=True,
    )


def denoiser() -> LTXVideoTransformer3DModel:
    """Return the transformer: five layers, three heads of 64."""
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=3,
        attention_head_dim=64,
        cross_attention_dim=192,
        num_layers=5,
        caption_channels=_TEXT_WIDTH,
    )


def text_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Return the text encoder: two layers of 96."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=_TEXT_WIDTH,
        d_kv=32,
        d_ff=2 * _TEXT_WIDTH,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer in which every word of the captions is one token, and any other text falls to letters."""
    words = sorted({*captions.words(), *moving.words()})
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [(f"▁{word}", -1.0) for word in words] + [(letter, -10.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS_MAX)


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the noise schedule: straight lines from noise to clip."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)

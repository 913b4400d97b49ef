"""The parts of tiny-sd, untrained: autoencoder, denoiser, text encoder, tokenizer, scheduler; real classes, small.

4 x 4 pixels --> 1 latent of LATENT_CHANNELS; a picture of 64 x 64 is 16 x 16 latents
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdbatch.generate.random_weights import byte_letters
from tiny import captions

LATENT_CHANNELS: Final = 4
LATENT_SIZE: Final = 16
TOKENS_MAX: Final = 40
_WIDTH: Final = 128
_START, _END = "<|startoftext|>", "<|endoftext|>"


def autoencoder() -> AutoencoderKL:
    """Return the autoencoder: three levels, factor 4 in each direction."""
    return AutoencoderKL(
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def denoiser() -> UNet2DConditionModel:
    """Return the denoiser: convolutions alone at 16 x 16, attention with heads of 32 at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=(2, 4, 4),  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return the text encoder: two layers of 128."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS_MAX,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def scheduler() -> DDIMScheduler:
    """Return the noise schedule: the cosine one, with velocity prediction.

    At its last step nothing of the picture is left (7 % in Stable Diffusion's), so nothing tells how bright it was, and
    a night can be dark; and half way 70 % is left (53 % there), so that a source's layout outlives a strength of 0.7.
    """
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer in which every word of the captions is one token, and any other text falls to pieces."""
    letters = byte_letters()
    merges = _merges(captions.words())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), _START, _END]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS_MAX)


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges, the most frequent pair first, until every word is one piece."""
    pieces = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs:
            return merges
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(pair)
        pieces = [_merged(word, pair) for word in pieces]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined

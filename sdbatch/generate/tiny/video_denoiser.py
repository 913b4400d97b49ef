"""Teach the video transformer to make clips from captions, first frames and key frames.

    Latents + scenarios --> train() --> moving averages of the transformer's and the text encoder's weights

A given frame is shown as diffusers' LTXConditionPipeline shows it: the first one in its place, without noise and at
timestep 0; a later one as further tokens, in front, that stand at the same place and time.
"""

# N clips of the training set, B of a batch, F frames, C latent channels, H and W latents, T tokens.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import LTXVideoTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import ModuleDict
from torch.nn.functional import mse_loss
from transformers import T5EncoderModel, T5Tokenizer

from sdbatch.generate.tiny.moving import Scenario, clip_caption
from sdbatch.generate.tiny.video_shapes import FRAMES_PER_LATENT, PIXELS_PER_LATENT, TOKENS_MAX

BATCH = 8
FPS = 8.0
LEARNING_RATE = 6e-4
DROPPED_PROMPTS = 0.1
FIRST_FRAMES = 0.5
"""Part of the clips whose first frame is given."""
KEY_FRAMES_MAX = 2
_WARMUP_STEPS = 200
_COOLDOWN = 0.25
_AVERAGE_DECAY_MAX = 0.998


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """What the autoencoder made of the clips, in mean 0 and deviation 1.

    Attributes:
        clips_NFCHW: Whole clips; F latent frames.
        keys_NKCHW: Some frames of each, as pictures of their own.
        key_frames_NK: Which ones; never the first.
    """

    clips_NFCHW: NDArray[np.float16]
    keys_NKCHW: NDArray[np.float16]
    key_frames_NK: NDArray[np.int64]


def train(
    parts: ModuleDict,
    averages: ModuleDict,
    tokenizer: T5Tokenizer,
    latents: Latents,
    scenarios: Sequence[Scenario],
    *,
    num_steps: int,
    state: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Train `transformer` and `text_encoder` from `state["step"]` on; see `denoiser.train`."""
    optimizer = torch.optim.AdamW(
        parts.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
    kept_s = time.monotonic()
    for step in range(state["step"], num_steps):
        generator = np.random.default_rng((6, step))
        chosen = generator.integers(len(scenarios), size=BATCH)
        prompts = [
            "" if generator.random() < DROPPED_PROMPTS else clip_caption(scenarios[index], generator)
            for index in chosen
        ]
        for group in optimizer.param_groups:
            cooled = (num_steps - step) / num_steps / _COOLDOWN
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / _WARMUP_STEPS, cooled)
        loss = _loss(parts, tokenizer, latents, chosen, prompts, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        decay = min(_AVERAGE_DECAY_MAX, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages.parameters()), list(parts.parameters()), 1 - decay)
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 180 or step + 1 == num_steps:
            state["optimizer"] = optimizer.state_dict()
            keep()
            kept_s = time.monotonic()


def _loss(
    parts: ModuleDict,
    tokenizer: T5Tokenizer,
    latents: Latents,
    chosen: NDArray[np.int64],
    prompts: list[str],
    generator: np.random.Generator,
) -> Tensor:
    """Return the error of the predicted velocity on all tokens that were not given."""
    device = next(parts.parameters()).device
    latents_BFCHW = torch.from_numpy(latents.clips_NFCHW[chosen]).to(device).float()
    batch, frames, channels, height, width = latents_BFCHW.shape
    clean_BTC = latents_BFCHW.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    noise_BTC = torch.from_numpy(generator.standard_normal(clean_BTC.shape, dtype=np.float32)).to(device)
    normal = generator.standard_normal((batch, 1, 1)).astype(np.float32)
    sigmas_BT1 = torch.sigmoid(torch.from_numpy(normal)).to(device).expand(batch, clean_BTC.shape[1], 1).clone()
    is_first = torch.from_numpy(generator.random(batch) < FIRST_FRAMES).to(device)
    sigmas_BT1[is_first, : height * width] = 0.0
    noisy_BTC = (1 - sigmas_BT1) * clean_BTC + sigmas_BT1 * noise_BTC
    starts = np.maximum(np.arange(frames) * FRAMES_PER_LATENT + 1 - FRAMES_PER_LATENT, 0)
    keys = generator.permutation(latents.key_frames_NK.shape[1])[: _num_keys(generator)]
    key_frames_BK = latents.key_frames_NK[chosen][:, keys]
    shown_BKCHW = torch.from_numpy(latents.keys_NKCHW[chosen][:, keys]).to(device).float()
    given_BTC = shown_BKCHW.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    places = [
        _coordinates(np.concatenate([key_frames, starts]), height, width).to(device) for key_frames in key_frames_BK
    ]
    timesteps_BT = torch.cat([torch.zeros(given_BTC.shape[:2], device=device), sigmas_BT1[..., 0] * 1000], dim=1)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=TOKENS_MAX, return_tensors="pt")
    transformer: LTXVideoTransformer3DModel = parts["transformer"]
    text_encoder: T5EncoderModel = parts["text_encoder"]
    with torch.autocast(device.type, torch.bfloat16):
        mask = tokens.attention_mask.to(device)
        predicted_BTC = transformer(
            hidden_states=torch.cat([given_BTC, noisy_BTC], dim=1),
            encoder_hidden_states=text_encoder(tokens.input_ids.to(device))[0],
            timestep=timesteps_BT,
            encoder_attention_mask=mask,
            video_coords=torch.stack(places),
            return_dict=False,
        )[0][:, given_BTC.shape[1] :]
    is_made = sigmas_BT1[..., 0] > 0
    return mse_loss(predicted_BTC.float()[is_made], (noise_BTC - clean_BTC)[is_made])


def _num_keys(generator: np.random.Generator) -> int:
    """Return how many later frames are given: none for half of the batches."""
    return int(generator.integers(1, KEY_FRAMES_MAX + 1)) if generator.random() < 0.5 else 0


def _coordinates(frames: NDArray[np.int64], height: int, width: int) -> Tensor:
    """Return where each token stands, seconds and pixels: 3 x T, as LTXConditionPipeline counts."""
    seconds = torch.from_numpy(frames).float() / FPS
    rows, columns = (torch.arange(size, dtype=torch.float32) * PIXELS_PER_LATENT for size in (height, width))
    return torch.stack(torch.meshgrid(seconds, rows, columns, indexing="ij")).reshape(3, -1)

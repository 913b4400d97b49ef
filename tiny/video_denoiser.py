"""Teach the video transformer to make pictures from captions, then clips from captions, first frames and key frames.

    pictures, then clips --> train() --> moving averages of the transformer's and the text encoder's weights

Pictures are clips of one frame: nine times cheaper, and what words mean is learned from them. A given frame is shown as
diffusers' LTXConditionPipeline shows it: the first one in its place, at timestep 0; a later one as further tokens, in
front, that stand at the same place and time; both with a little of the noise that is left in the clip.
"""

# N clips of the training set, B of a batch, F frames, C latent channels, H and W latents, T tokens, K key frames.

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, apply_rotary_emb
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import ModuleDict
from torch.nn.functional import mse_loss
from transformers import T5EncoderModel, T5Tokenizer

from tiny.moving import FPS
from tiny.video_shapes import FRAMES_PER_LATENT, PIXELS_PER_LATENT

LEARNING_RATE = 1.5e-3
DROPPED_PROMPTS = 0.1
FIRST_FRAMES = 0.5
"""Part of the clips whose first frame is given."""
KEY_FRAMES_MAX = 2
GIVEN_NOISE = 0.15
"""Noise in a given frame at the first step; it falls with the square of the time: LTXConditionPipeline's default."""
TOKENS_PADDED = (128, 128, 128, 256)
"""Lengths that captions are padded to: LTX's pipelines let the text encoder read the padding, 128 or 256 tokens."""
SIGMA_SHIFT = 1.5
"""Noise levels lean this much to the high ones, where a clip's contents are decided."""
_WARMUP_STEPS = 100
_COOLDOWN = 0.3
_AVERAGE_DECAY_MAX = 0.998


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Clips to learn from, as the autoencoder has them, in mean 0 and deviation 1.

    Attributes:
        clips_NFCHW: Whole clips; F latent frames, 1 for pictures.
        keys_NKCHW: Some later frames of each, as pictures of their own; K may be 0.
        key_frames_NK: Which ones.
        caption: Returns one way to ask for clip number n.
        batch: Clips of a step.
    """

    clips_NFCHW: NDArray[np.float16]
    keys_NKCHW: NDArray[np.float16]
    key_frames_NK: NDArray[np.int64]
    caption: Callable[[int, np.random.Generator], str]
    batch: int


def train(
    parts: ModuleDict,
    averages: ModuleDict,
    tokenizer: T5Tokenizer,
    shown_until: Mapping[int, Shown],
    *,
    state: dict[str, Any],
    keep: Callable[[], None],
    stop: int | None = None,
) -> None:
    """Train `transformer` and `text_encoder` from `state["step"]` on.

    Args:
        parts: Changed in place.
        averages: The same, holding moving averages of the weights; changed in place.
        tokenizer: For captions, which are made anew each time a clip is shown.
        shown_until: What is learned from, by the step at which it ends; ascending.
        state: `step`, `losses`, `optimizers`; changed in place.
        keep: Writes parts, averages and state to disk; called every few minutes.
        stop: Step to leave at, all being kept; None for the last.
    """
    parts["text_encoder"].eval()  # no dropout
    if next(parts.parameters()).device.type == "cpu":
        parts["transformer"].set_attn_processor(_SpelledOutAttention())  # type: ignore[operator]
    optimizers = _optimizers(parts)
    for optimizer, kept in zip(optimizers, state.get("optimizers", ()), strict=False):
        optimizer.load_state_dict(kept)
    kept_s = time.monotonic()
    num_steps = max(shown_until)
    stop = num_steps if stop is None else stop
    for step in range(state["step"], stop):
        shown = next(part for end, part in shown_until.items() if step < end)
        rate = LEARNING_RATE * min(1.0, (step + 1) / _WARMUP_STEPS, (num_steps - step) / num_steps / _COOLDOWN)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        loss = _loss(parts, tokenizer, shown, np.random.default_rng((6, step)))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(_AVERAGE_DECAY_MAX, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages.parameters()), list(parts.parameters()), 1 - decay)
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 120 or step + 1 == stop:
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
            keep()
            kept_s = time.monotonic()


def _optimizers(parts: ModuleDict) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices, AdamW for all else."""
    matrices = {
        id(weight): weight
        for weight in parts["transformer"].transformer_blocks.parameters()  # type: ignore[union-attr]
        if weight.ndim == 2 and min(weight.shape) > 64
    }
    others = [weight for weight in parts.parameters() if id(weight) not in matrices]
    return [
        torch.optim.Muon(list(matrices.values()), lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
    ]


class _SpelledOutAttention:
    """LTX's attention without the fused kernel, whose backward pass takes a CPU three times as long in bfloat16."""

    def __call__(
        self,
        attn: LTXAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(context)), attn.to_v(context)
        if image_rotary_emb is not None:
            query, key = apply_rotary_emb(query, image_rotary_emb), apply_rotary_emb(key, image_rotary_emb)
        query, key, value = (
            one.to(torch.bfloat16).unflatten(2, (attn.heads, -1)).transpose(1, 2) for one in (query, key, value)
        )
        with torch.autocast("cpu", enabled=False):  # which would take the softmax to 32 bit
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
            if attention_mask is not None:
                scores = scores + attention_mask[:, None].to(scores.dtype)
            mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        made: Tensor = attn.to_out[0](mixed)
        return made


def _loss(parts: ModuleDict, tokenizer: T5Tokenizer, shown: Shown, generator: np.random.Generator) -> Tensor:
    """Return the error of the predicted velocity on all tokens that were not given."""
    device = next(parts.parameters()).device
    chosen = generator.integers(len(shown.clips_NFCHW), size=shown.batch)
    prompts = ["" if generator.random() < DROPPED_PROMPTS else shown.caption(int(index), generator) for index in chosen]
    clips_BFCHW = torch.from_numpy(shown.clips_NFCHW[chosen]).to(device).float()
    batch, frames, channels, height, width = clips_BFCHW.shape
    clean_BTC = clips_BFCHW.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    noise_BTC = _normal(generator, clean_BTC.shape, device)
    sigma_B11 = _sigmas(generator, batch).to(device)
    sigmas_BT1 = sigma_B11.expand(batch, clean_BTC.shape[1], 1).clone()
    if frames > 1:
        is_first = torch.from_numpy(generator.random(batch) < FIRST_FRAMES).to(device)
        sigmas_BT1[is_first, : height * width] = 0.0
    is_made_BT1 = sigmas_BT1 > 0
    noisy_BTC = (1 - sigmas_BT1) * clean_BTC + sigmas_BT1 * noise_BTC
    given_noise_B11 = GIVEN_NOISE * sigma_B11**2
    noisy_BTC = torch.where(is_made_BT1, noisy_BTC, clean_BTC + given_noise_B11 * noise_BTC)
    keys = generator.permutation(shown.key_frames_NK.shape[1])[: _num_keys(generator)]
    is_even = len(keys) == 0 and generator.random() < 0.5  # as LTXPipeline and LTXImageToVideoPipeline count
    key_frames_BK = shown.key_frames_NK[chosen][:, keys]
    keys_BKCHW = torch.from_numpy(shown.keys_NKCHW[chosen][:, keys]).to(device).float()
    given_BTC = keys_BKCHW.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    given_BTC = given_BTC + given_noise_B11 * _normal(generator, given_BTC.shape, device)
    starts = np.arange(frames) * FRAMES_PER_LATENT
    starts = starts if is_even else np.maximum(starts + 1 - FRAMES_PER_LATENT, 0)
    places = [
        _coordinates(np.concatenate([key_frames, starts]), height, width).to(device) for key_frames in key_frames_BK
    ]
    timesteps_BT = torch.cat([torch.zeros(given_BTC.shape[:2], device=device), sigmas_BT1[..., 0] * 1000], dim=1)
    length = TOKENS_PADDED[int(generator.integers(len(TOKENS_PADDED)))]
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
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
    is_made_BT = is_made_BT1[..., 0]
    return mse_loss(predicted_BTC.float()[is_made_BT], (noise_BTC - clean_BTC)[is_made_BT])


def _normal(generator: np.random.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(device)


def _sigmas(generator: np.random.Generator, batch: int) -> Tensor:
    """Return noise levels spread evenly over the batch, then shifted: sigma_B11."""
    part = (generator.permutation(batch) + generator.random(batch)) / batch
    sigmas = SIGMA_SHIFT * part / (1 + (SIGMA_SHIFT - 1) * part)
    return torch.from_numpy(np.maximum(sigmas, 1e-3).astype(np.float32)).reshape(-1, 1, 1)


def _num_keys(generator: np.random.Generator) -> int:
    """Return how many later frames are given: none for half of the batches."""
    return int(generator.integers(1, KEY_FRAMES_MAX + 1)) if generator.random() < 0.5 else 0


def _coordinates(frames: NDArray[np.int64], height: int, width: int) -> Tensor:
    """Return where each token stands, seconds and pixels: 3 x T, as LTXConditionPipeline counts."""
    seconds = torch.from_numpy(frames).float() / FPS
    rows, columns = (torch.arange(size, dtype=torch.float32) * PIXELS_PER_LATENT for size in (height, width))
    return torch.stack(torch.meshgrid(seconds, rows, columns, indexing="ij")).reshape(3, -1)

"""Teach denoiser and text encoder to paint what a caption says.

latents_NCHW + landscapes --> train() --> moving averages of the UNet's and the text encoder's weights
"""

# N pictures of the training set, B of a batch, C latent channels, H and W latents.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import ModuleDict
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from tiny.captions import caption
from tiny.world import Landscape

BATCH = 32
LEARNING_RATE = 8e-4
DROPPED_PROMPTS = 0.1
AVERAGE_DECAY_MAX = 0.998
_WARMUP_STEPS = 100
_COOLDOWN = 0.25
"""Last part of the steps, in which the learning rate falls to zero."""


def train(
    parts: ModuleDict,
    averages: ModuleDict,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    latents_NCHW: NDArray[np.float16],
    landscapes: Sequence[Landscape],
    *,
    num_steps: int,
    state: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Train from `state["step"]` on; `keep` is called every few minutes.

    Args:
        parts: `unet` and `text_encoder`; changed in place.
        averages: The same, holding moving averages of the weights; changed in place.
        tokenizer: For captions, which are made anew each time a picture is shown.
        scheduler: Its noise levels and its kind of prediction.
        latents_NCHW: Of all pictures.
        landscapes: What each picture shows.
        num_steps: Steps of BATCH pictures in all.
        state: `step`, `losses`, `optimizer`; changed in place.
        keep: Writes parts, averages and state to disk.
    """
    device = next(parts.parameters()).device
    optimizer = torch.optim.AdamW(
        parts.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
    kept_s = time.monotonic()
    for step in range(state["step"], num_steps):
        generator = np.random.default_rng((2, step))
        chosen = generator.integers(len(landscapes), size=BATCH)
        prompts = [
            "" if generator.random() < DROPPED_PROMPTS else caption(landscapes[index], generator) for index in chosen
        ]
        latents = torch.from_numpy(latents_NCHW[chosen]).to(device).float()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(
                1.0, (step + 1) / _WARMUP_STEPS, (num_steps - step) / num_steps / _COOLDOWN
            )
        loss = _loss(parts, tokenizer, scheduler, latents, prompts, step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        _average(averages, parts, min(AVERAGE_DECAY_MAX, (step + 1) / (step + 10)))
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 180 or step + 1 == num_steps:
            state["optimizer"] = optimizer.state_dict()
            keep()
            kept_s = time.monotonic()


def _loss(
    parts: ModuleDict,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    latents_BCHW: Tensor,
    prompts: list[str],
    step: int,
) -> Tensor:
    """Return the error of the prediction, at noise levels spread evenly over the batch."""
    device = latents_BCHW.device
    generator = torch.Generator().manual_seed(step)
    noise = torch.randn(latents_BCHW.shape, generator=generator).to(device)
    part = (torch.arange(len(prompts)) + torch.rand(len(prompts), generator=generator)) / len(prompts)
    timesteps = (part * scheduler.config.num_train_timesteps).long().to(device)
    noisy = scheduler.add_noise(latents_BCHW, noise, timesteps)
    wanted = scheduler.get_velocity(latents_BCHW, noise, timesteps)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
    text_encoder: CLIPTextModel = parts["text_encoder"]
    unet: UNet2DConditionModel = parts["unet"]
    # Attention spelled out: on a CPU, fused attention's backward pass is six times slower in bfloat16.
    with sdpa_kernel(SDPBackend.MATH), torch.autocast(device.type, torch.bfloat16):
        predicted = unet(noisy, timesteps, text_encoder(tokens).last_hidden_state).sample
    return mse_loss(predicted.float(), wanted)


@torch.no_grad()
def _average(averages: ModuleDict, parts: ModuleDict, decay: float) -> None:
    torch._foreach_lerp_(list(averages.parameters()), list(parts.parameters()), 1 - decay)

"""Teach the autoencoder to keep pictures.

pictures_BHWC --> train() --> AutoencoderKL whose latents have mean 0 and deviation 1 in each channel
"""

# B pictures of a batch, C channels, H and W pixels.

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BATCH = 8
LEARNING_RATE = 2e-3
KL_WEIGHT = 5e-5
_WARMUP_STEPS = 50


def as_input(pictures_BHWC: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return pictures as the autoencoder takes them: BCHW in -1..1."""
    return torch.from_numpy(pictures_BHWC).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(model: AutoencoderKL, pictures_BCHW: Tensor) -> Tensor:
    """Return the loss: error of colours and of edges, and a little pressure on the latents."""
    with torch.autocast(pictures_BCHW.device.type, torch.bfloat16):
        latents = model.encode(pictures_BCHW).latent_dist
        decoded = model.decode(latents.sample()).sample
    difference = decoded.float() - pictures_BCHW
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    pressure = 0.5 * (latents.mean.float() ** 2 + latents.var.float() - 1 - latents.logvar.float()).mean()
    loss: Tensor = difference.abs().mean() + 0.5 * edges + KL_WEIGHT * pressure
    return loss


def train(
    model: AutoencoderKL,
    read_pictures: Callable[[], NDArray[np.uint8]],
    *,
    num_steps: int,
    state: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Train from `state["step"]` on; `keep` is called every few minutes.

    Args:
        model: Changed in place.
        read_pictures: Returns all pictures there are, as uint8 BHWC.
        num_steps: Steps of BATCH pictures in all.
        state: `step`, `losses`, `optimizer`; changed in place.
        keep: Writes model and state to disk.
    """
    device = model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.98))
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
    pictures = read_pictures()
    kept_s = time.monotonic()
    for step in range(state["step"], num_steps):
        generator = np.random.default_rng((1, step))
        batch = as_input(pictures[generator.integers(len(pictures), size=BATCH)], device)
        rate = min(1.0, (step + 1) / _WARMUP_STEPS) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / num_steps)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 120 or step + 1 == num_steps:
            state["optimizer"] = optimizer.state_dict()
            keep()
            pictures, kept_s = read_pictures(), time.monotonic()


@torch.no_grad()
def whiten(model: AutoencoderKL, pictures_BHWC: NDArray[np.uint8]) -> None:
    """Fold each latent channel's mean and deviation into the layers around it: latents of mean 0, deviation 1."""
    means = torch.cat([model.encode(as_input(part, model.device)).latent_dist.mean for part in _parts(pictures_BHWC)])
    mean, deviation = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    count = len(mean)
    into, out_of = model.quant_conv, model.post_quant_conv
    into.weight[:count] /= deviation[:, None, None, None]
    into.bias[:count] = (into.bias[:count] - mean) / deviation
    into.bias[count:] -= 2 * deviation.log()
    out_of.bias += torch.einsum("oi,i->o", out_of.weight[:, :, 0, 0], mean)
    out_of.weight *= deviation[None, :, None, None]


@torch.no_grad()
def encode(model: AutoencoderKL, pictures_BHWC: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the pictures' mean latents, BCHW."""
    with torch.autocast(model.device.type, torch.bfloat16):
        latents = [model.encode(as_input(part, model.device)).latent_dist.mean.cpu() for part in _parts(pictures_BHWC)]
    return torch.cat(latents).half().numpy()


@torch.no_grad()
def error(model: AutoencoderKL, pictures_BHWC: NDArray[np.uint8]) -> float:
    """Return the round trip's mean error per channel value, of 255."""
    total = 0.0
    for part in _parts(pictures_BHWC):
        batch = as_input(part, model.device)
        decoded = model.decode(model.encode(batch).latent_dist.mean).sample.clamp(-1, 1)
        total += float(functional.l1_loss(decoded, batch)) * len(part)
    return total / len(pictures_BHWC) * 127.5


def _parts(pictures_BHWC: NDArray[np.uint8], size: int = 64) -> list[NDArray[np.uint8]]:
    return [pictures_BHWC[start : start + size] for start in range(0, len(pictures_BHWC), size)]

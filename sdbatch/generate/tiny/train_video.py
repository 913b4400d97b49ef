"""Make tiny-video from nothing: draw clips, teach the autoencoder, then the transformer; write an LTXPipeline folder.

    python -m sdbatch.generate.tiny.train_video FOLDER

As train.py: it goes on where it was stopped, and runs on a GPU where there is one. No weights of it are shipped yet.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import ModuleDict

from sdbatch.generate.tiny import video_denoiser, video_shapes
from sdbatch.generate.tiny.captions import is_held_out
from sdbatch.generate.tiny.moving import Scenario, draw_clip, random_scenario
from sdbatch.generate.tiny.train import keeper, write_losses

_LOG = logging.getLogger(__name__)
_SEED = 20261123
_REEL_CLIPS = 100
_BATCH = 4
_LEARNING_RATE = 1.5e-3
_KL_WEIGHT = 1e-4
_KEYS_KEPT = 4
FRAMES_SEEN = 5
"""Frames of a piece of clip the autoencoder learns from; every fourth step shows it single pictures."""


def main() -> None:
    """Train what is missing in the folder, then write the model to FOLDER/tiny-video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reels", type=int, default=80, help=f"files of {_REEL_CLIPS} training clips")
    parser.add_argument("--autoencoder-steps", type=int, default=20_000)
    parser.add_argument("--denoiser-steps", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    train(arguments.folder, arguments.reels, arguments.autoencoder_steps, arguments.denoiser_steps)


def train(folder: Path, num_reels: int, autoencoder_steps: int, denoiser_steps: int) -> None:
    """Train what is missing in the folder, then write the model to FOLDER/tiny-video."""
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(_SEED)
    scenarios, clips_NFHWC = draw_reels(folder, num_reels)
    vae = _train_autoencoder(folder, clips_NFHWC, autoencoder_steps, device)
    latents = encode(vae, clips_NFHWC)
    tokenizer = video_shapes.tokenizer()
    text_encoder = video_shapes.text_encoder(tokenizer)
    parts = ModuleDict({"transformer": video_shapes.denoiser(), "text_encoder": text_encoder}).to(device)
    averages = copy.deepcopy(parts).requires_grad_(requires_grad=False)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "denoiser.pt", {"parts": parts, "averages": averages}, state)
    video_denoiser.train(
        parts, averages, tokenizer, latents, scenarios, num_steps=denoiser_steps, state=state, keep=keep
    )
    write_losses(folder / "denoiser-losses.csv", state["losses"])
    pipeline = LTXPipeline(
        vae=vae,
        transformer=averages["transformer"],
        text_encoder=averages["text_encoder"],
        tokenizer=tokenizer,
        scheduler=video_shapes.scheduler(),
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder / "tiny-video", safe_serialization=True)


def draw_reels(folder: Path, num_reels: int) -> tuple[list[Scenario], NDArray[np.uint8]]:
    """Draw the training clips that are not there yet; return what they show, and them."""
    scenarios, reels = [], []
    for reel in range(num_reels):
        shown = _reel_scenarios(reel)
        file = folder / f"clips{reel}.npy"
        if not file.exists():
            np.save(file.with_suffix(".part.npy"), np.stack([draw_clip(scenario) for scenario in shown]))
            file.with_suffix(".part.npy").rename(file)
            _LOG.info("drew %s", file)
        scenarios += shown
        reels.append(np.load(file))
    return scenarios, np.concatenate(reels)


def _reel_scenarios(reel: int) -> list[Scenario]:
    generator = np.random.default_rng((8, reel))
    scenarios: list[Scenario] = []
    while len(scenarios) < _REEL_CLIPS:
        scenario = random_scenario(generator)
        if not is_held_out(scenario.landscape):
            scenarios.append(scenario)
    return scenarios


def _train_autoencoder(
    folder: Path, clips_NFHWC: NDArray[np.uint8], num_steps: int, device: torch.device
) -> AutoencoderKLLTXVideo:
    vae = video_shapes.autoencoder().to(device)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "autoencoder.pt", {"vae": vae}, state)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
    kept_s = time.monotonic()
    for step in range(state["step"], num_steps):
        generator = np.random.default_rng((9, step))
        clips_BCFHW = _pieces(clips_NFHWC, generator, FRAMES_SEEN if step % 4 else 1).to(device)
        warmth = min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / num_steps)))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * warmth
        loss = _autoencoder_loss(vae, clips_BCFHW)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 120 or step + 1 == num_steps:
            state["optimizer"] = optimizer.state_dict()
            keep()
            kept_s = time.monotonic()
    write_losses(folder / "autoencoder-losses.csv", state["losses"])
    _note_statistics(vae, clips_NFHWC[:50])
    return vae.requires_grad_(requires_grad=False)


def _pieces(clips_NFHWC: NDArray[np.uint8], generator: np.random.Generator, num_frames: int) -> Tensor:
    """Return pieces of clips at random: BCFHW in -1..1; as many frames in all, however long a piece is."""
    count = _BATCH * FRAMES_SEEN // num_frames
    starts = generator.integers(clips_NFHWC.shape[1] - num_frames + 1, size=count)
    chosen = generator.integers(len(clips_NFHWC), size=count)
    pieces = [clips_NFHWC[clip, start : start + num_frames] for clip, start in zip(chosen, starts, strict=True)]
    return _as_input(np.stack(pieces))


def _as_input(clips_BFHWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(clips_BFHWC).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _autoencoder_loss(vae: AutoencoderKLLTXVideo, clips_BCFHW: Tensor) -> Tensor:
    with torch.autocast(clips_BCFHW.device.type, torch.bfloat16):
        latents = vae.encode(clips_BCFHW).latent_dist
        decoded = vae.decode(latents.sample()).sample
    difference = decoded.float() - clips_BCFHW
    edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=4).abs().mean()
    pressure = 0.5 * (latents.mean.float() ** 2 + latents.var.float() - 1 - latents.logvar.float()).mean()
    loss: Tensor = difference.abs().mean() + 0.5 * edges + _KL_WEIGHT * pressure
    return loss


@torch.no_grad()
def _note_statistics(vae: AutoencoderKLLTXVideo, clips_NFHWC: NDArray[np.uint8]) -> None:
    """Keep the latents' mean and deviation in the autoencoder, where LTX's pipelines read them."""
    means = torch.cat(
        [vae.encode(_as_input(clips_NFHWC[[index]])).latent_dist.mean for index in range(len(clips_NFHWC))]
    )
    vae.latents_mean.copy_(means.mean(dim=(0, 2, 3, 4)))
    vae.latents_std.copy_(means.std(dim=(0, 2, 3, 4)))


@torch.no_grad()
def encode(vae: AutoencoderKLLTXVideo, clips_NFHWC: NDArray[np.uint8]) -> video_denoiser.Latents:
    """Return the clips' latents, and those of a few later frames of each."""
    generator = np.random.default_rng(10)
    later = np.arange(1, clips_NFHWC.shape[1])
    key_frames_NK = np.stack([np.sort(generator.choice(later, _KEYS_KEPT, replace=False)) for _ in clips_NFHWC])
    clips, keys = [], []
    for clip_FHWC, key_frames in zip(clips_NFHWC, key_frames_NK, strict=True):
        clips.append(_latents(vae, clip_FHWC[None]).transpose(0, 2, 1, 3, 4)[0])
        keys.append(_latents(vae, clip_FHWC[key_frames][:, None])[:, :, 0])
    return video_denoiser.Latents(clips_NFCHW=np.stack(clips), keys_NKCHW=np.stack(keys), key_frames_NK=key_frames_NK)


def _latents(vae: AutoencoderKLLTXVideo, clips_BFHWC: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return latents in mean 0 and deviation 1: BCFHW."""
    mean, deviation = (value[None, :, None, None, None] for value in (vae.latents_mean, vae.latents_std))
    latents = (vae.encode(_as_input(clips_BFHWC).to(vae.device)).latent_dist.mean - mean) / deviation
    return np.asarray(latents.half().cpu().numpy())


if __name__ == "__main__":
    main()

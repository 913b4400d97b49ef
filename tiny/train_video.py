"""Make tiny-video from nothing: draw, fit and teach the autoencoder, then the transformer; write an LTXPipeline folder.

    python -m tiny.train_video FOLDER

As train.py: it goes on where it was stopped, and runs on a GPU where there is one. The encoder is fitted in closed form
(principal.py); the decoder learns from clips and from pictures, the transformer from pictures, then clips.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import ModuleDict

from tiny import principal, video_denoiser, video_shapes
from tiny.captions import caption
from tiny.moving import NUM_FRAMES, Scenario, clip_caption, draw_clip, random_scenario, shows_held_out
from tiny.train import draw_sheets, keeper, write_losses
from tiny.video_denoiser import Shown
from tiny.world import Landscape

_LOG = logging.getLogger(__name__)
_SEED = 20261123
_REEL_CLIPS = 100
_BATCH = 2
"""Whole clips, as the decoder looks back over most of one: taught on pieces of 5 frames it was off by 6.4 of 255 within
five frames, by 10 after. Every fourth step shows it single pictures, as many as the clips have frames."""
_LEARNING_RATE = 1e-3
_CLIPS_FITTED = 400
_KEYS_KEPT = 6
PICTURES_A_STEP = 48
SHORT_CLIPS_A_STEP = 12
CLIPS_A_STEP = 8
SHORT_LATENTS = 5
"""Latent frames of the short clips, 9 frames: half the work of whole ones, for what motion is."""

COURSE = (
    *(("pictures", 500), ("beginnings", 351), ("pictures", 1500), ("beginnings", 1000), ("clips", 4600)),
    *(("pictures", 450), ("clips", 850), ("pictures", 500), ("clips", 3300)),
)
"""What tiny-video was shown, in turn: words from pictures, motion from clips, the words again, as clips blur them."""

# N clips or pictures, B of a batch, F frames, C channels, H and W pixels or latents, K key frames.


def main() -> None:
    """Train what is missing in the folder, then write the model to FOLDER/tiny-video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said = " ".join(f"{shown}:{steps}" for shown, steps in COURSE)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheets", type=int, default=12, help="files of 1,000 training pictures")
    parser.add_argument("--reels", type=int, default=40, help=f"files of {_REEL_CLIPS} training clips")
    parser.add_argument("--decoder-steps", type=int, default=6000)
    parser.add_argument(
        "--course",
        nargs="+",
        type=_lesson,
        default=COURSE,
        metavar="SHOWN:STEPS",
        help=f"what the transformer is shown, in turn: pictures, beginnings, clips; {said}",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(_SEED)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    landscapes, pictures_NHWC = draw_sheets(folder, arguments.sheets)
    scenarios, clips_NFHWC = draw_reels(folder, arguments.reels)
    vae = fit_autoencoder(folder, clips_NFHWC)
    train_decoder(folder, vae, clips_NFHWC, pictures_NHWC, arguments.decoder_steps, device)
    clips = shown_clips(folder, vae, clips_NFHWC, scenarios)
    shown = {
        "pictures": shown_pictures(folder, vae, pictures_NHWC, landscapes),
        "beginnings": shortened(clips, scenarios),
        "clips": clips,
    }
    ends = itertools.accumulate(steps for _, steps in arguments.course)
    shown_until = {end: shown[name] for end, (name, _) in zip(ends, arguments.course, strict=True)}
    averages = train_denoiser(folder, shown_until, device)
    export(vae, averages, folder / "tiny-video")


def _lesson(said: str) -> tuple[str, int]:
    name, _, steps = said.partition(":")
    if name not in {"pictures", "beginnings", "clips"} or not steps.isdecimal() or int(steps) == 0:
        raise argparse.ArgumentTypeError(f"{said!r}; say pictures, beginnings or clips, and steps: pictures:2000")
    return name, int(steps)


def train_denoiser(folder: Path, shown_until: Mapping[int, Shown], device: torch.device) -> ModuleDict:
    """Train transformer and text encoder from where they stand; return the moving averages of their weights."""
    tokenizer = video_shapes.tokenizer()
    text_encoder = video_shapes.text_encoder(tokenizer)
    parts = ModuleDict({"transformer": video_shapes.denoiser(), "text_encoder": text_encoder}).to(device)
    averages = copy.deepcopy(parts).requires_grad_(requires_grad=False)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "denoiser.pt", {"parts": parts, "averages": averages}, state)
    video_denoiser.train(parts, averages, tokenizer, shown_until, state=state, keep=keep)
    write_losses(folder / "denoiser-losses.csv", state["losses"])
    return averages


def export(vae: AutoencoderKLLTXVideo, averages: ModuleDict, folder: Path) -> None:
    """Write the model as an LTXPipeline folder in 16 bit."""
    pipeline = LTXPipeline(
        vae=vae,
        transformer=averages["transformer"],
        text_encoder=averages["text_encoder"],
        tokenizer=video_shapes.tokenizer(),
        scheduler=video_shapes.scheduler(),
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)


def draw_reels(folder: Path, num_reels: int) -> tuple[list[Scenario], NDArray[np.uint8]]:
    """Draw the training clips that are not there yet; return what they show, and them."""
    scenarios, reels = [], []
    for reel in range(num_reels):
        shown = reel_scenarios(reel)
        file = folder / f"clips{reel}.npy"
        if not file.exists():
            np.save(file.with_suffix(".part.npy"), np.stack([draw_clip(scenario) for scenario in shown]))
            file.with_suffix(".part.npy").rename(file)
            _LOG.info("drew %s", file)
        scenarios += shown
        reels.append(np.load(file))
    return scenarios, np.concatenate(reels)


def reel_scenarios(reel: int) -> list[Scenario]:
    """Return what the clips of a reel show; at neither end a combination that is held out."""
    generator = np.random.default_rng((8, reel))
    scenarios: list[Scenario] = []
    while len(scenarios) < _REEL_CLIPS:
        scenario = random_scenario(generator)
        if not shows_held_out(scenario):
            scenarios.append(scenario)
    return scenarios


def fit_autoencoder(folder: Path, clips_NFHWC: NDArray[np.uint8]) -> AutoencoderKLLTXVideo:
    """Return the autoencoder as it is fitted to some of the clips, without training."""
    vae = video_shapes.autoencoder()
    file = folder / "fitted.pt"
    if not file.exists():
        every = max(1, len(clips_NFHWC) // _CLIPS_FITTED)
        principal.fit(vae, as_input(clips_NFHWC[::every]))
        torch.save(vae.state_dict(), file)
    vae.load_state_dict(torch.load(file, weights_only=True))
    return vae


def train_decoder(
    folder: Path,
    vae: AutoencoderKLLTXVideo,
    clips_NFHWC: NDArray[np.uint8],
    pictures_NHWC: NDArray[np.uint8],
    num_steps: int,
    device: torch.device,
) -> None:
    """Train the decoder from where it stands."""
    vae.to(device)
    vae.encoder.requires_grad_(requires_grad=False)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "autoencoder.pt", {"vae": vae}, state)
    weights = list(vae.decoder.parameters())
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
    kept_s = time.monotonic()
    for step in range(state["step"], num_steps):
        generator = np.random.default_rng((9, step))
        if step % 4:
            shown_BFHWC = clips_NFHWC[generator.integers(len(clips_NFHWC), size=_BATCH)]
        else:
            shown_BFHWC = pictures_NHWC[generator.integers(len(pictures_NHWC), size=_BATCH * NUM_FRAMES)][:, None]
        warmth = min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / num_steps)))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * warmth
        loss = _decoder_loss(vae, as_input(shown_BFHWC).to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        principal.keep_apart(vae)
        state["step"], state["losses"] = step + 1, [*state["losses"], float(loss.detach())]
        if time.monotonic() - kept_s > 120 or step + 1 == num_steps:
            state["optimizer"] = optimizer.state_dict()
            keep()
            kept_s = time.monotonic()
    write_losses(folder / "decoder-losses.csv", state["losses"])
    vae.requires_grad_(requires_grad=False)
    _LOG.info("autoencoder: mean error %.2f of 255", autoencoder_error(vae, clips_NFHWC[-50:]))


def as_input(clips_BFHWC: NDArray[np.uint8]) -> Tensor:
    """Return clips as the autoencoder takes them: BCFHW in -1..1."""
    return torch.from_numpy(clips_BFHWC).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _decoder_loss(vae: AutoencoderKLLTXVideo, clips_BCFHW: Tensor) -> Tensor:
    """Return the error of the round trip's colours and edges."""
    with torch.autocast(clips_BCFHW.device.type, torch.bfloat16):
        with torch.no_grad():
            latents = vae.encode(clips_BCFHW).latent_dist.sample()
        decoded = vae.decode(latents).sample
    difference = decoded.float() - clips_BCFHW
    edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=4).abs().mean()
    loss: Tensor = difference.abs().mean() + 0.5 * edges
    return loss


@torch.no_grad()
def autoencoder_error(vae: AutoencoderKLLTXVideo, clips_NFHWC: NDArray[np.uint8]) -> float:
    """Return the round trip's mean error per channel value, of 255."""
    errors = []
    for clip_FHWC in clips_NFHWC:
        clip_BCFHW = as_input(clip_FHWC[None]).to(vae.device)
        decoded_BCFHW = vae.decode(vae.encode(clip_BCFHW).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(float((decoded_BCFHW - clip_BCFHW).abs().mean()) * 127.5)
    return float(np.mean(errors))


def shown_pictures(
    folder: Path, vae: AutoencoderKLLTXVideo, pictures_NHWC: NDArray[np.uint8], landscapes: Sequence[Landscape]
) -> Shown:
    """Return pictures to learn from, as clips of one frame."""
    file = folder / "picture-latents.npy"
    if not file.exists():
        parts = [_latents(vae, pictures_NHWC[start : start + 50, None]) for start in range(0, len(pictures_NHWC), 50)]
        np.save(file, np.concatenate(parts).transpose(0, 2, 1, 3, 4))
    latents_NFCHW = np.load(file)
    return Shown(
        clips_NFCHW=latents_NFCHW,
        keys_NKCHW=latents_NFCHW[:, :0],
        key_frames_NK=np.zeros((len(latents_NFCHW), 0), np.int64),
        caption=lambda index, generator: caption(landscapes[index], generator),
        batch=PICTURES_A_STEP,
    )


def shown_clips(
    folder: Path, vae: AutoencoderKLLTXVideo, clips_NFHWC: NDArray[np.uint8], scenarios: Sequence[Scenario]
) -> Shown:
    """Return clips to learn from, and a few later frames of each; the last frame is always among them."""
    file = folder / "clip-latents.npz"
    if not file.exists():
        latents_NFCHW, keys_NKCHW, key_frames_NK = clip_latents(vae, clips_NFHWC)
        np.savez(file, clips=latents_NFCHW, keys=keys_NKCHW, key_frames=key_frames_NK)
    kept = np.load(file)
    return Shown(
        clips_NFCHW=kept["clips"],
        keys_NKCHW=kept["keys"],
        key_frames_NK=kept["key_frames"],
        caption=lambda index, generator: clip_caption(scenarios[index], generator),
        batch=CLIPS_A_STEP,
    )


def shortened(clips: Shown, scenarios: Sequence[Scenario]) -> Shown:
    """Return the beginnings of those clips in which the sun does not set: what their captions say is in them."""
    kept = np.array([number for number, scenario in enumerate(scenarios) if not scenario.is_setting])
    last = (SHORT_LATENTS - 1) * video_shapes.FRAMES_PER_LATENT
    is_inside_NK = clips.key_frames_NK[kept] <= last
    nearest_NK = np.argsort(~is_inside_NK, axis=1, kind="stable")[:, :1]  # one key frame that lies in it, if there is
    has_one = is_inside_NK.any(axis=1)
    kept, nearest_NK = kept[has_one], nearest_NK[has_one]
    return Shown(
        clips_NFCHW=clips.clips_NFCHW[kept, :SHORT_LATENTS],
        keys_NKCHW=np.take_along_axis(clips.keys_NKCHW[kept], nearest_NK[..., None, None, None], axis=1),
        key_frames_NK=np.take_along_axis(clips.key_frames_NK[kept], nearest_NK, axis=1),
        caption=lambda index, generator: clips.caption(int(kept[index]), generator),
        batch=SHORT_CLIPS_A_STEP,
    )


def clip_latents(
    vae: AutoencoderKLLTXVideo, clips_NFHWC: NDArray[np.uint8]
) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.int64]]:
    """Return the clips' latents, those of their key frames as pictures, and which frames these are."""
    generator = np.random.default_rng(10)
    last = clips_NFHWC.shape[1] - 1
    clips, keys, key_frames = [], [], []
    for clip_FHWC in clips_NFHWC:
        chosen = np.append(generator.choice(np.arange(1, last), _KEYS_KEPT - 1, replace=False), last)
        clips.append(_latents(vae, clip_FHWC[None]).transpose(0, 2, 1, 3, 4)[0])
        keys.append(_latents(vae, clip_FHWC[chosen][:, None])[:, :, 0])
        key_frames.append(chosen)
    return np.stack(clips), np.stack(keys), np.stack(key_frames)


@torch.no_grad()
def _latents(vae: AutoencoderKLLTXVideo, clips_BFHWC: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return latents in mean 0 and deviation 1: BCFHW."""
    mean, deviation = (value[None, :, None, None, None] for value in (vae.latents_mean, vae.latents_std))
    latents = (vae.encode(as_input(clips_BFHWC).to(vae.device)).latent_dist.mean - mean) / deviation
    return np.asarray(latents.half().cpu().numpy())


if __name__ == "__main__":
    main()

"""Make tiny-sd from nothing: draw pictures, teach the autoencoder, then the denoiser; write the model's folder.

    python -m tiny.train FOLDER

FOLDER keeps what was reached, so that the same command goes on after a kill, and the loss curves. It runs on a GPU if
there is one. Seeded: the same pictures, captions and noise come in the same order.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from numpy.typing import NDArray
from torch.nn import Module, ModuleDict

from tiny import autoencoder, denoiser, shapes
from tiny.captions import is_held_out
from tiny.world import Landscape, draw, random_landscape

_LOG = logging.getLogger(__name__)
_SEED = 20261121
_NUM_SHEETS = 16
_SHEET_PICTURES = 1000
AUTOENCODER_STEPS = 6000
DENOISER_STEPS = 5000


def main() -> None:
    """Train what is missing in the folder, then write the model to FOLDER/tiny-sd."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheets", type=int, default=_NUM_SHEETS, help="files of 1,000 training pictures")
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--denoiser-steps", type=int, default=DENOISER_STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(_SEED)
    landscapes, pictures_NHWC = draw_sheets(folder, arguments.sheets)
    vae = train_autoencoder(folder, pictures_NHWC, arguments.autoencoder_steps, device)
    averages = train_denoiser(folder, vae, landscapes, pictures_NHWC, arguments.denoiser_steps, device)
    export(vae, averages, folder / "tiny-sd")


def sheet_landscapes(sheet: int) -> list[Landscape]:
    """Return what the pictures of one sheet show."""
    generator = np.random.default_rng((7, sheet))
    landscapes: list[Landscape] = []
    while len(landscapes) < _SHEET_PICTURES:
        landscape = random_landscape(generator)
        if not is_held_out(landscape):
            landscapes.append(landscape)
    return landscapes


def draw_sheets(folder: Path, num_sheets: int) -> tuple[list[Landscape], NDArray[np.uint8]]:
    """Draw the training pictures that are not there yet; return what they show, and them."""
    landscapes, sheets = [], []
    for sheet in range(num_sheets):
        shown = sheet_landscapes(sheet)
        file = folder / f"p{sheet}.npy"
        if not file.exists():
            np.save(file.with_suffix(".part.npy"), np.stack([draw(landscape) for landscape in shown]))
            file.with_suffix(".part.npy").rename(file)
            _LOG.info("drew %s", file)
        landscapes += shown
        sheets.append(np.load(file))
    return landscapes, np.concatenate(sheets)


def train_autoencoder(
    folder: Path, pictures_NHWC: NDArray[np.uint8], num_steps: int, device: torch.device
) -> AutoencoderKL:
    """Train the autoencoder from where it stands; return it whitened."""
    vae = shapes.autoencoder().to(device)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "autoencoder.pt", {"vae": vae}, state)
    autoencoder.train(vae, lambda: pictures_NHWC, num_steps=num_steps, state=state, keep=keep)
    write_losses(folder / "autoencoder-losses.csv", state["losses"])
    vae.requires_grad_(requires_grad=False)
    autoencoder.whiten(vae, pictures_NHWC[:1000])
    _LOG.info("autoencoder: mean error %.2f of 255", autoencoder.error(vae, pictures_NHWC[-200:]))
    return vae


def train_denoiser(
    folder: Path,
    vae: AutoencoderKL,
    landscapes: list[Landscape],
    pictures_NHWC: NDArray[np.uint8],
    num_steps: int,
    device: torch.device,
) -> ModuleDict:
    """Train denoiser and text encoder from where they stand; return the moving averages of their weights."""
    file = folder / "latents.npy"
    if not file.exists():
        np.save(file, autoencoder.encode(vae, pictures_NHWC))
    tokenizer = shapes.tokenizer()
    parts = ModuleDict({"unet": shapes.denoiser(), "text_encoder": shapes.text_encoder(tokenizer)}).to(device)
    parts["unet"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averages = copy.deepcopy(parts).requires_grad_(requires_grad=False)
    state: dict[str, Any] = {"step": 0, "losses": []}
    keep = keeper(folder / "denoiser.pt", {"parts": parts, "averages": averages}, state)
    latents_NCHW = np.load(file)
    denoiser.train(
        parts, averages, tokenizer, shapes.scheduler(), latents_NCHW, landscapes,
        num_steps=num_steps, state=state, keep=keep,
    )  # fmt: skip
    write_losses(folder / "denoiser-losses.csv", state["losses"])
    return averages


def export(vae: AutoencoderKL, averages: ModuleDict, folder: Path) -> None:
    """Write the model as a StableDiffusionPipeline folder in 16 bit."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=averages["text_encoder"],
        tokenizer=shapes.tokenizer(),
        unet=averages["unet"],
        scheduler=shapes.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    _LOG.info("wrote %s", folder)


def keeper(file: Path, modules: dict[str, Module], state: dict[str, Any]) -> Callable[[], None]:
    """Take up what the file holds, if it is there; return the function that writes it anew."""
    if file.exists():
        kept = torch.load(file, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(kept[name])
        state.update(kept["state"])

    def keep() -> None:
        part = file.with_suffix(".part")
        torch.save({"state": state, **{name: module.state_dict() for name, module in modules.items()}}, part)
        part.rename(file)
        recent = state["losses"][-100:]
        _LOG.info("%s: step %d, loss %.4f", file.stem, state["step"], sum(recent) / len(recent))

    return keep


def write_losses(file: Path, losses: list[float]) -> None:
    """Write the loss curve: the mean of every ten steps."""
    rows = [f"{end},{np.mean(losses[end - 10 : end]):.5f}" for end in range(10, len(losses) + 1, 10)]
    file.write_text("\n".join(["step,loss", *rows]) + "\n")


if __name__ == "__main__":
    main()

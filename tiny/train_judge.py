"""Train the judge's classifier on drawn pictures, blurred and dimmed at random.

    python -m tiny.train_judge FOLDER

FOLDER is that of train.py: its drawn sheets are used. The weights go beside judge.py.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from tiny.judge import WEIGHTS, Classifier, as_input
from tiny.train import draw_sheets
from tiny.world import SCENES

_LOG = logging.getLogger(__name__)
_SEED = 20261122
_BATCH = 64


def main() -> None:
    """Train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheets", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    landscapes, pictures_NHWC = draw_sheets(arguments.folder, arguments.sheets)
    names = list(SCENES)
    scenes = torch.tensor([names.index(landscape.scene) for landscape in landscapes])
    posters = torch.tensor([float(landscape.style == "poster") for landscape in landscapes])
    torch.manual_seed(_SEED)
    generator = np.random.default_rng(_SEED)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    for step in range(arguments.steps):
        chosen = generator.integers(len(landscapes), size=_BATCH)
        scene_logits, poster_logits = classifier(_roughened(as_input(pictures_NHWC[chosen])))
        loss = functional.cross_entropy(scene_logits, scenes[chosen], label_smoothing=0.05)
        loss = loss + functional.binary_cross_entropy_with_logits(poster_logits, posters[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            _LOG.info("step %d, loss %.4f", step + 1, float(loss.detach()))
    save_file({name: value.half() for name, value in classifier.state_dict().items()}, WEIGHTS)


def _roughened(pictures_BCHW: Tensor) -> Tensor:
    """Return pictures blurred, dimmed, shifted and speckled, each by its own amount."""
    count = len(pictures_BCHW)
    blurred = functional.avg_pool2d(pictures_BCHW, 5, stride=1, padding=2, count_include_pad=False)
    part = torch.rand(count, 1, 1, 1)
    mixed = pictures_BCHW * (1 - part) + blurred * part
    shift = torch.randint(-2, 3, (2,)).tolist()
    rolled = functional.pad(mixed, (2, 2, 2, 2), mode="replicate")
    moved = rolled[:, :, 2 + shift[0] : 66 + shift[0], 2 + shift[1] : 66 + shift[1]]
    light = 1 + 0.2 * (torch.rand(count, 1, 1, 1) - 0.5)
    return moved * light + 0.06 * torch.randn(count, 1, 1, 1) + 0.05 * torch.randn_like(moved)


if __name__ == "__main__":
    main()

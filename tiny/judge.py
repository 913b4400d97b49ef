"""Say what a picture of the small world shows: for tests and figures, never for training.

    pictures_BHWC --> judge() --> one Verdict (scene, time, style) each

Time of day and the sketch are told by rules on pixels; the scene, and poster from photo, by a small classifier that was
trained on drawn pictures (train_judge.py) and lies beside this file.
"""

# B pictures, H and W pixels, C = 3 channels.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from tiny.world import SCENES

WEIGHTS: Final = Path(__file__).parent / "judge.safetensors"
_SKETCH_CHROMA_MAX = 14.0
"""A sketch differs less than this between channels, of 255; the mildest photo by 20."""
_SKY: Final = (slice(5, 17), slice(5, 59))
"""Rows and columns that are sky in every scene and lie within a poster's margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a picture shows.

    Attributes:
        scene: One of world.SCENES.
        time: One of world.TIMES.
        style: One of world.STYLES.
    """

    scene: str
    time: str
    style: str


class Classifier(nn.Module):
    """Four convolutions and two answers: logits of the scene, and whether it is a poster."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out_of in ((3, 16), (16, 32), (32, 48), (48, 64)):
            layers += [nn.Conv2d(into, out_of, 3, stride=2, padding=1), nn.GroupNorm(8, out_of), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.scene = nn.Linear(64 * 16, len(SCENES))
        self.poster = nn.Linear(64 * 16, 1)

    def forward(self, pictures_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the scene (B x scenes) and of the poster (B)."""
        features = self.body(pictures_BCHW)
        return self.scene(features), self.poster(features)[:, 0]


def as_input(pictures_BHWC: NDArray[np.uint8]) -> Tensor:
    """Return pictures as the classifier takes them: BCHW in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures_BHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def judge(pictures_BHWC: NDArray[np.uint8]) -> list[Verdict]:
    """Say what each picture of 64 x 64 shows."""
    classifier = _classifier()
    with torch.inference_mode():
        scenes, posters = classifier(as_input(pictures_BHWC))
    names = tuple(SCENES)
    verdicts = []
    for picture_HWC, scene, poster in zip(pictures_BHWC, scenes.argmax(dim=1), posters, strict=True):
        is_sketch = chroma(picture_HWC) < _SKETCH_CHROMA_MAX
        verdicts.append(
            Verdict(
                scene=names[int(scene)],
                time=time_of_sketch(picture_HWC) if is_sketch else time_of_day(picture_HWC),
                style="sketch" if is_sketch else "poster" if poster > 0 else "photo",
            )
        )
    return verdicts


def chroma(picture_HWC: NDArray[np.uint8]) -> float:
    """Return the mean difference between a pixel's strongest and weakest channel, of 255."""
    picture = picture_HWC.astype(np.float64)
    return float((picture.max(axis=2) - picture.min(axis=2)).mean())


def time_of_day(picture_HWC: NDArray[np.uint8]) -> str:
    """Tell the time from the sky: a dark one is night's, one more red than blue is sunset's."""
    red, green, blue = np.median(picture_HWC[_SKY].reshape(-1, 3), axis=0)
    if 0.3 * red + 0.59 * green + 0.11 * blue < 88:
        return "night"
    return "sunset" if red > blue else "day"


def time_of_sketch(picture_HWC: NDArray[np.uint8]) -> str:
    """Tell the time from the paper left white in the sky."""
    brightness = float(picture_HWC[_SKY].mean())
    return "night" if brightness < 154 else "sunset" if brightness < 200 else "day"


def accuracy(verdicts: Sequence[Verdict], wanted: Sequence[Verdict], *names: str) -> float:
    """Return the part of verdicts that is right in all of the named fields."""
    right = [
        all(getattr(verdict, name) == getattr(want, name) for name in names)
        for verdict, want in zip(verdicts, wanted, strict=True)
    ]
    return sum(right) / len(right)


@lru_cache(maxsize=1)
def _classifier() -> Classifier:
    classifier = Classifier()
    classifier.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return classifier.eval()

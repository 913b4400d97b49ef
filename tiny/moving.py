"""The small world in motion: the camera pans, the sun sets, clouds drift, and captions say so.

    Scenario (Landscape, pan, setting, drift) --> draw_clip() --> clip_FHWC, 64 x 64
                                              --> clip_caption() --> "the beach at sunset, camera pans left"

Needs numpy and Pillow only.
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tiny.captions import caption, is_held_out
from tiny.world import TIMES, Landscape, draw, random_landscape

NUM_FRAMES: Final = 17
FPS: Final = 8.0
PAN_PER_FRAME: Final = 2.0
"""Speed of the camera, pixels a frame; over NUM_FRAMES it crosses half a picture."""
DRIFT_PER_FRAME: Final = 1.0

PANS: Final[Mapping[str, int]] = {"left": -1, "still": 0, "right": 1}

_PAN_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "left": ("camera pans left", "panning left", "the camera moves to the left", "slow pan to the left"),
    "still": ("still camera", "the camera does not move", "static shot"),
    "right": ("camera pans right", "panning right", "the camera moves to the right", "slow pan to the right"),
}
_SETTING_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "day": ("the sun sets", "day turns to evening", "from day to sunset"),
    "sunset": ("night falls", "it gets dark", "from sunset to night"),
}
_DRIFT_WORDS: Final = ("clouds drift", "drifting clouds", "passing clouds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything a clip shows.

    Attributes:
        landscape: As it is in the middle of the panorama, at the first frame's hour.
        pan: One of PANS.
        is_setting: The time goes on to the next of TIMES; from day or sunset.
        is_drifting: The clouds move.
    """

    landscape: Landscape
    pan: str
    is_setting: bool
    is_drifting: bool

    def __post_init__(self) -> None:
        if self.pan not in PANS:
            raise ValueError(f"pan {self.pan!r}; there are {', '.join(PANS)}")
        if self.is_setting and self.landscape.time not in _SETTING_WORDS:
            raise ValueError(f"the sun cannot set by {self.landscape.time}; only by {' and '.join(_SETTING_WORDS)}")


def random_scenario(generator: np.random.Generator, **fixed: str) -> Scenario:
    """Return a scenario at random, but for the parts of the landscape that are given."""
    landscape = random_landscape(generator, **fixed)
    pan = tuple(PANS)[int(generator.choice(3, p=(0.38, 0.24, 0.38)))]
    return Scenario(
        landscape=landscape,
        pan=pan,
        is_setting=landscape.time != "night" and bool(generator.random() < (0.6 if pan == "still" else 0.2)),
        is_drifting=bool(generator.random() < 0.3),
    )


def draw_clip(scenario: Scenario, num_frames: int = NUM_FRAMES) -> NDArray[np.uint8]:
    """Draw a clip: clip_FHWC. The camera is in the panorama's middle half way through."""
    dusk = float(TIMES.index(scenario.landscape.time))
    frames = []
    for number in range(num_frames):
        part = number / max(num_frames - 1, 1)
        frames.append(
            draw(
                scenario.landscape,
                pan=PANS[scenario.pan] * PAN_PER_FRAME * (number - (num_frames - 1) / 2),
                dusk=dusk + part * scenario.is_setting,
                drift=DRIFT_PER_FRAME * number * scenario.is_drifting,
            )
        )
    return np.stack(frames)


def clip_caption(scenario: Scenario, generator: np.random.Generator) -> str:
    """Return one way to ask for the clip, decided by the generator."""

    def pick(choices: Sequence[str]) -> str:
        return choices[int(generator.integers(len(choices)))]

    said = [caption(scenario.landscape, generator)]
    if scenario.pan != "still" or generator.random() < 0.3:
        said.append(pick(_PAN_WORDS[scenario.pan]))
    if scenario.is_setting:
        said.append(pick(_SETTING_WORDS[scenario.landscape.time]))
    if scenario.is_drifting and generator.random() < 0.7:
        said.append(pick(_DRIFT_WORDS))
    first, *rest = said
    order = [rest[index] for index in generator.permutation(len(rest))]
    spoken = [*order, first] if generator.random() < 0.25 else [first, *order]
    return ", ".join(spoken)


def ending(scenario: Scenario) -> Landscape:
    """Return the landscape as the last frame has it, but for the camera's place."""
    later = TIMES[TIMES.index(scenario.landscape.time) + scenario.is_setting]
    return replace(scenario.landscape, time=later)


def shows_held_out(scenario: Scenario) -> bool:
    """Say whether the clip begins or ends with a scene, time and style that were kept from training."""
    return is_held_out(scenario.landscape) or is_held_out(ending(scenario))


def words() -> list[str]:
    """Return the words of motion, beside captions.words()."""
    phrases = [phrase for table in (_PAN_WORDS, _SETTING_WORDS) for choices in table.values() for phrase in choices]
    return sorted({word for phrase in (*phrases, *_DRIFT_WORDS) for word in phrase.split()})

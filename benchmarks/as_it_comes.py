"""A campaign as it comes, by sdbatch and by what a careful user would write instead, in turns.

each pair: grouped loop, accelerate, grouped Ray Data, sdbatch --> outputs compared --> CPU s and rows/s, start included
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.lab import Lab, load
from benchmarks.mixed import campaign, models
from benchmarks.mixed.grouping import groups
from benchmarks.table import Row, paired
from benchmarks.trial import TOLERANCE, Watched, watch
from sdbatch.encode.video import read_frames_of_video

ROWS = 1200
QUICK_ROWS = 60
ARM_MAX_S = 1200.0
OURS = "sdbatch"
GROUPED = "grouped Ray Data"
ARMS: Mapping[str, str] = {
    "grouped loop": "benchmarks.mixed.careful:loop",
    "accelerate": "benchmarks.mixed.split:main",
    GROUPED: "benchmarks.mixed.grouped:main",
    OURS: "benchmarks.mixed.ours:main",
}
CLIP_SIDE = 16
CLIP_DIFFERENCE_MAX = 4.0
"""Mean difference of two clips of one row, of 255, at 16 pixels a side: two encoders lose what is fine differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one arm did once.

    Attributes:
        cpu_s: CPU seconds of all its processes, Ray's own and every start included.
        wall_s: From the command to its end.
        rate_per_s: Rows a second of that time.
        files: File by row id.
    """

    cpu_s: float
    wall_s: float
    rate_per_s: float
    files: dict[str, Path]


def rows(lab: Lab) -> list[Row]:
    """Measure; a quick lab compares outputs of a small campaign, and its times are of no worth."""
    return measured(lab, QUICK_ROWS if lab.is_quick else ROWS)


def measured(lab: Lab, count: int) -> list[Row]:
    """Measure with so many rows; of a smaller campaign, the start of the processes is the larger part."""
    folder = models.make(lab.folder / "models")
    manifest = campaign.write(lab.folder, count, lab.seed)
    arms = tuple(ARMS)
    pairs = []
    for number in range(1 if lab.is_quick else lab.pairs):
        found = {}
        for arm in arms[:: -1 if number % 2 else 1]:
            found[arm] = _run(arm, manifest, folder, lab.folder / f"{number}-{arm.replace(' ', '-')}")
            print(f"  {arm}: {found[arm].cpu_s:.1f} CPU s, {found[arm].wall_s:.1f} s; load {load()}", flush=True)
        pairs.append(found)
    said = [compare(found) for found in pairs]
    return _table(pairs, manifest, said[0])


def _run(arm: str, manifest: Path, folder: Path, output: Path) -> Made:
    """Render the campaign with one arm.

    Raises:
        RuntimeError: When it failed twice or left outputs out.
    """
    try:
        watched = _watched(arm, manifest, folder, output)
    except RuntimeError as error:  # Ray gives up a start that takes half a minute, as it may on a loaded machine
        print(f"  {arm} is tried once more: {error}", flush=True)
        output = output.with_name(f"{output.name}-again")
        watched = _watched(arm, manifest, folder, output)
    files = outputs(output)
    expected = sum(map(len, groups(manifest)))
    if len(files) != expected:
        raise RuntimeError(f"{arm} made {len(files)} outputs of {expected}")
    cpu_s, wall_s = watched.meter.total_s, watched.wall_s
    return Made(cpu_s=cpu_s, wall_s=wall_s, rate_per_s=expected / wall_s, files=files)


def _watched(arm: str, manifest: Path, folder: Path, output: Path) -> Watched:
    (output / "notes").mkdir(parents=True)
    return watch(ARMS[arm], (manifest, folder, output), output, ARM_MAX_S)


def outputs(folder: Path) -> dict[str, Path]:
    """Return every output by its row's id; a campaign's names end in key and number."""
    suffixes = {".png", ".mp4"}
    ours = {file.stem.rsplit("-", 2)[0]: file for file in folder.glob("campaign/assets/*") if file.suffix in suffixes}
    return ours or {file.stem: file for file in folder.iterdir() if file.suffix in suffixes}


def compare(found: Mapping[str, Made]) -> str:
    """Compare every output with that of the first arm; return what was found, in words.

    Raises:
        ValueError: When one is further off than the tolerance.
    """
    (first, reference), *others = found.items()
    expected = {name: read(file) for name, file in reference.files.items()}
    equal = 0
    for arm, made in others:
        for name, file in made.files.items():
            pixels = read(file)
            if pixels.shape != expected[name].shape:
                raise ValueError(f"{arm}: {name} is {pixels.shape}, that of {first} is {expected[name].shape}")
            off = np.abs(expected[name].astype(np.int16) - pixels)
            is_far = off.mean() > CLIP_DIFFERENCE_MAX if file.suffix == ".mp4" else off.max() > TOLERANCE
            if is_far:
                raise ValueError(
                    f"{arm}: {name} is off by {off.max()}, {off.mean():.2f} in the mean, from that of {first}"
                )
            equal += not off.any()
    count = len(expected) * len(others)
    return f"{equal} of {count} outputs equal to those of {first}, pictures within {TOLERANCE} of 255"


def read(file: Path) -> NDArray[np.uint8]:
    """Return a picture's pixels_HWC, or a clip's small frames_FHWC."""
    if file.suffix == ".mp4":
        return read_frames_of_video(file.read_bytes(), "mp4", CLIP_SIDE, CLIP_SIDE, scales=True)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _table(pairs: Sequence[Mapping[str, Made]], manifest: Path, said: str) -> list[Row]:
    ours = [found[OURS] for found in pairs]
    calls = len(groups(manifest))
    table = []
    for arm in ARMS:
        theirs = [found[arm] for found in pairs]
        if arm == OURS:
            continue
        is_promised = arm == GROUPED
        table += [
            paired(
                "campaign_cpu" if is_promised else f"campaign as it comes: CPU s, {arm} / sdbatch",
                [one.cpu_s for one in ours],
                [one.cpu_s for one in theirs],
                [other.cpu_s / one.cpu_s for one, other in zip(ours, theirs, strict=True)],
                f"start included; {calls} calls of {arm}; {said}",
            ),
            paired(
                "campaign_rate" if is_promised else f"campaign as it comes: rows/s, sdbatch / {arm}",
                [one.rate_per_s for one in ours],
                [one.rate_per_s for one in theirs],
                [one.rate_per_s / other.rate_per_s for one, other in zip(ours, theirs, strict=True)],
                "start included",
            ),
        ]
    return table

"""Measure what tiny-sd understood: how often a picture shows what its prompt says.

    python -m tiny.measure            # prints the figures and writes them into MODEL_CARD.md

Seeds are fixed. Sources are drawn anew, from seeds that no training picture had.
"""

# B pictures of a batch, H and W pixels, C = 3 channels.

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray
from PIL import Image

from sdbatch.checkpoints import SHIPPED
from tiny.captions import HELD_OUT, ORDERS_HELD_OUT, caption, is_held_out
from tiny.judge import Verdict, accuracy, judge
from tiny.world import Landscape, draw, random_landscape

NUM_STEPS: Final = 20
GUIDANCE_SCALE: Final = 4.0
STRENGTHS: Final = (0.3, 0.5, 0.7, 0.9)
CARD: Final = SHIPPED["tiny-sd"].parent / "MODEL_CARD.md"
_FIGURES = re.compile(r"<!-- figures: .* -->\n")
_LOG = logging.getLogger(__name__)
_BATCH = 25

Pictures = NDArray[np.uint8]


class Painter:
    """tiny-sd with its three pipelines, which share their modules."""

    def __init__(self, folder: Path = SHIPPED["tiny-sd"]) -> None:
        """Load the model in 32 bit."""
        started_s = time.process_time()
        self._text = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.load_s = time.process_time() - started_s
        modules = {**self._text.components, "requires_safety_checker": False}
        self._image = StableDiffusionImg2ImgPipeline(**modules)
        self._inpaint = StableDiffusionInpaintPipeline(**modules)
        for pipeline in (self._text, self._image, self._inpaint):
            pipeline.set_progress_bar_config(disable=True)

    def paint(self, prompts: Sequence[str], *, seed: int = 0, negative_prompt: str = "") -> Pictures:
        """Paint one picture for each prompt: pictures_BHWC."""
        return self._batches(
            self._text, prompts, seed, lambda part: {"negative_prompt": [negative_prompt] * len(prompts[part])}
        )

    def edit(self, prompts: Sequence[str], sources_BHWC: Pictures, strength: float, *, seed: int = 0) -> Pictures:
        """Paint each source anew after its prompt."""
        return self._batches(
            self._image, prompts, seed, lambda part: {"image": _pil(sources_BHWC[part]), "strength": strength}
        )

    def fill(self, prompts: Sequence[str], sources_BHWC: Pictures, mask_HW: NDArray[np.uint8]) -> Pictures:
        """Paint anew what the mask says, 255 where."""

        def options(part: slice) -> Mapping[str, Any]:
            images = _pil(sources_BHWC[part])
            masks = [Image.fromarray(mask_HW)] * len(images)
            return {"image": images, "mask_image": masks, "height": 64, "width": 64, "strength": 1.0}

        return self._batches(self._inpaint, prompts, 0, options)

    def _batches(
        self,
        pipeline: DiffusionPipeline,
        prompts: Sequence[str],
        seed: int,
        options: Callable[[slice], Mapping[str, Any]],
    ) -> Pictures:
        made = []
        for start in range(0, len(prompts), _BATCH):
            part = slice(start, min(start + _BATCH, len(prompts)))
            numbers = range(part.start, part.stop)
            told = {
                "prompt": list(prompts[part]),
                "num_inference_steps": NUM_STEPS,
                "guidance_scale": GUIDANCE_SCALE,
                "generator": [torch.Generator().manual_seed(1000 * seed + number) for number in numbers],
                "output_type": "np",
                **options(part),
            }
            made.append((pipeline(**told).images * 255).round().astype(np.uint8))
        return np.concatenate(made)


def asked(count: int, seed: int) -> tuple[list[str], list[Verdict]]:
    """Return captions in held-out word orders, every other one of a held-out combination, and what they ask for."""
    generator = np.random.default_rng((3, seed))
    combinations = sorted(HELD_OUT)
    prompts, wanted = [], []
    for number in range(count):
        scene, hour, style = combinations[number // 2 % len(combinations)]
        fixed = {"scene": scene, "time": hour, "style": style} if number % 2 else {}
        landscape = random_landscape(generator, **fixed)
        while not number % 2 and is_held_out(landscape):
            landscape = random_landscape(generator)
        prompts.append(caption(landscape, generator, orders=ORDERS_HELD_OUT, is_full=True))
        wanted.append(seen(landscape))
    return prompts, wanted


def seen(landscape: Landscape) -> Verdict:
    """Return what a perfect judge would say of a landscape."""
    return Verdict(scene=landscape.scene, time=landscape.time, style=landscape.style)


def sources(count: int, seed: int, **fixed: str) -> tuple[list[Landscape], Pictures]:
    """Draw landscapes that no training picture shows."""
    generator = np.random.default_rng((4, seed))
    landscapes = [random_landscape(generator, **fixed) for _ in range(count)]
    return landscapes, np.stack([draw(landscape) for landscape in landscapes])


def edges(picture_HWC: Pictures) -> NDArray[np.float64]:
    """Return the strength of edges, softened over 3 x 3 pixels: edges_HW."""
    grey = picture_HWC.astype(np.float64).mean(axis=2)
    down, right = np.gradient(grey)
    strength = np.pad(np.hypot(down, right), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(strength, (3, 3))
    return np.asarray(windows.mean(axis=(2, 3)))


def edge_correlation(first_BHWC: Pictures, second_BHWC: Pictures) -> float:
    """Return the mean correlation between two sets of pictures' edges, pair by pair."""
    pairs = zip(first_BHWC, second_BHWC, strict=True)
    return float(np.mean([np.corrcoef(edges(one).ravel(), edges(other).ravel())[0, 1] for one, other in pairs]))


def measure_judge(count: int) -> dict[str, float]:
    """Return the judge's own accuracy on unseen drawn pictures."""
    landscapes, pictures = sources(count, seed=0)
    verdicts, wanted = judge(pictures), [seen(landscape) for landscape in landscapes]
    return {f"judge: {name} right on drawn pictures": accuracy(verdicts, wanted, name) for name in _FIELDS}


_FIELDS = ("scene", "time", "style")


def measure_text(painter: Painter, count: int) -> dict[str, float]:
    """Return how often held-out captions become their picture, and how often no caption does."""
    prompts, wanted = asked(count, seed=0)
    verdicts = judge(painter.paint(prompts, seed=1))
    unasked = judge(painter.paint([""] * count, seed=1))
    few = count // 4
    against = judge(painter.paint([""] * few, seed=1, negative_prompt="at night, in the dark"))
    figures = {"scene and time right, held-out captions": accuracy(verdicts, wanted, "scene", "time")}
    figures |= {f"{name} right, held-out captions": accuracy(verdicts, wanted, name) for name in _FIELDS}
    figures["all three right, held-out combinations"] = accuracy(verdicts[1::2], wanted[1::2], *_FIELDS)
    figures["all three right, held-out word order alone"] = accuracy(verdicts[::2], wanted[::2], *_FIELDS)
    figures["scene and time right, empty prompt"] = accuracy(unasked, wanted, "scene", "time")
    figures["style right, empty prompt"] = accuracy(unasked, wanted, "style")
    figures["night, empty prompt"] = _part_of(unasked, "time", "night")
    figures["night, empty prompt, negative prompt `at night, in the dark`"] = _part_of(against, "time", "night")
    return figures


def measure_edits(painter: Painter, count: int) -> dict[str, float]:
    """Return how day becomes night and a sketch a photo, and what stays of the source."""
    figures: dict[str, float] = {}
    for title, fixed, words, strength, field, goal in (
        ("day to night, strength 0.7", {"time": "day", "style": "photo"}, "{} at night", 0.7, "time", "night"),
        ("sketch to colour, strength 0.8", {"time": "day", "style": "sketch"}, "a photo of {}", 0.8, "style", "photo"),
    ):
        landscapes, drawn = sources(count, seed=1, **fixed)
        made = painter.edit([words.format(landscape.scene) for landscape in landscapes], drawn, strength, seed=2)
        figures[f"{title}: {goal} afterwards"] = _part_of(judge(made), field, goal)
        figures[f"{title}: edge correlation with the source"] = edge_correlation(made, drawn)
        figures[f"{title}: with another drawn picture"] = edge_correlation(made, np.roll(drawn, 1, axis=0))
    return figures


def measure_strengths(painter: Painter, count: int) -> dict[str, float]:
    """Return what stays of the source at each strength."""
    landscapes, drawn = sources(count, seed=2, time="day", style="photo")
    prompts = [f"{landscape.scene} at night" for landscape in landscapes]
    figures = {}
    for strength in STRENGTHS:
        made = painter.edit(prompts, drawn, strength, seed=3)
        figures[f"strength {strength}: mean difference from the source, of 255"] = float(
            np.abs(made.astype(np.float64) - drawn).mean()
        )
    return figures


def measure_filling(painter: Painter, count: int) -> dict[str, float]:
    """Return how well inpainting keeps what it must not touch, and whether it touches the rest."""
    landscapes, drawn = sources(count, seed=3, time="day", style="photo")
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:28] = 255
    made = painter.fill([f"{landscape.scene} at night" for landscape in landscapes], drawn, mask)
    difference = np.abs(made.astype(np.float64) - drawn).mean(axis=(0, 2, 3))
    return {
        "inpainting the sky: mean difference above, of 255": float(difference[:24].mean()),
        "inpainting the sky: mean difference below, of 255": float(difference[36:].mean()),
    }


def measure_speed(painter: Painter) -> dict[str, float]:
    """Return times of one core."""
    painter.paint(["a serene beach at sunset"])
    return {
        f"seconds an image, {NUM_STEPS} steps, one core": core_s(lambda: painter.paint(["a serene beach at sunset"])),
        "seconds to load, libraries imported": painter.load_s,
    }


def core_s(call: Callable[[], object]) -> float:
    """Return what a call takes on one core, in the core's own seconds, so that neighbours do not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started_s = time.process_time()
    call()
    spent_s = time.process_time() - started_s
    torch.set_num_threads(threads)
    return spent_s


def measure(painter: Painter, part: float = 1.0) -> Iterator[tuple[str, float]]:
    """Yield every figure; `part` of the pictures are made."""
    yield from measure_speed(painter).items()
    yield from measure_judge(round(600 * part)).items()
    yield from measure_text(painter, round(200 * part)).items()
    yield from measure_edits(painter, round(100 * part)).items()
    yield from measure_strengths(painter, round(30 * part)).items()
    yield from measure_filling(painter, round(20 * part)).items()


def _part_of(verdicts: Sequence[Verdict], field: str, goal: str) -> float:
    return [getattr(verdict, field) for verdict in verdicts].count(goal) / len(verdicts)


def _pil(pictures_BHWC: Pictures) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pictures_BHWC]


def write_card(figures: Mapping[str, float], card: Path = CARD) -> None:
    """Put the figures into a model card, after the mark that names their command."""
    rows = ["| figure | value |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in figures.items())]
    said = card.read_text()
    mark = _FIGURES.search(said)
    assert mark is not None
    card.write_text("\n".join([said[: mark.end()], *rows]) + "\n")


def main() -> None:
    """Print the figures; write them into the card unless only a part is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=SHIPPED["tiny-sd"], help="another model of this kind")
    parser.add_argument("--part", type=float, default=1.0, help="this part of the pictures; writes no card below 1")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    figures = {}
    for name, value in measure(Painter(arguments.folder), arguments.part):
        figures[name] = value
        _LOG.info("%7.3f  %s", value, name)
    if arguments.part == 1 and arguments.folder == SHIPPED["tiny-sd"]:
        write_card(figures)


if __name__ == "__main__":
    main()

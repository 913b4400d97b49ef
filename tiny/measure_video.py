"""Measure what tiny-video understood: whether a clip moves as its prompt says, and keeps the frames it is given.

    python -m tiny.measure_video      # prints the figures and writes them into VIDEO_CARD.md

As measure.py: fixed seeds, sources drawn from seeds that no training clip had.
"""

# N clips, F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import LTXConditionPipeline, LTXImageToVideoPipeline, LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from numpy.typing import NDArray
from PIL import Image

from sdbatch.checkpoints import SHIPPED
from sdbatch.generate.tasks.adapters import adapt
from sdbatch.recipe import Recipe
from tiny.captions import HELD_OUT
from tiny.judge import judge
from tiny.judge_clips import motion, pan_of, ssim
from tiny.measure import core_s, edge_correlation, write_card
from tiny.moving import FPS, NUM_FRAMES, Scenario, clip_caption, draw_clip, ending, random_scenario, shows_held_out

NUM_STEPS: Final = 20
GUIDANCE_SCALE: Final = 2.0
KEY_FRAMES: Final = (0, 8, 16)
EDIT_STRENGTH: Final = 0.7
CARD: Final = SHIPPED["tiny-video"].parent / "VIDEO_CARD.md"
_LOG = logging.getLogger(__name__)
_BATCH = 4

Pictures = NDArray[np.uint8]


class Projector:
    """tiny-video with its three pipelines, which share their modules."""

    def __init__(self, folder: Path = SHIPPED["tiny-video"]) -> None:
        """Load the model in 32 bit."""
        started_s = time.process_time()
        self._text = LTXPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.load_s = time.process_time() - started_s
        self._image = LTXImageToVideoPipeline(**self._text.components)
        self._keys = LTXConditionPipeline(**self._text.components)
        for pipeline in (self._text, self._image, self._keys):
            pipeline.set_progress_bar_config(disable=True)

    def show(self, prompts: Sequence[str], *, seed: int = 0) -> Pictures:
        """Make one clip for each prompt: clips_NFHWC."""
        made = []
        for start in range(0, len(prompts), _BATCH):
            part = list(prompts[start : start + _BATCH])
            made.append(_pixels(self._text(part, **_told(range(start, start + len(part)), seed))))
        return np.concatenate(made)

    def animate(self, prompt: str, source_HWC: Pictures, *, seed: int = 0) -> Pictures:
        """Make a clip that begins with a picture: clip_FHWC."""
        (clip_FHWC,) = _pixels(self._image(image=Image.fromarray(source_HWC), prompt=prompt, **_told(range(1), seed)))
        return np.asarray(clip_FHWC)

    def pass_through(self, prompt: str, sources_KHWC: Pictures, frames: Sequence[int], *, seed: int = 0) -> Pictures:
        """Make a clip that passes through pictures at frames: clip_FHWC."""
        conditions = [
            LTXVideoCondition(image=Image.fromarray(source_HWC), frame_index=frame)
            for source_HWC, frame in zip(sources_KHWC, frames, strict=True)
        ]
        (clip_FHWC,) = _pixels(self._keys(conditions=conditions, prompt=prompt, **_told(range(1), seed)))
        return np.asarray(clip_FHWC)

    def restyle(self, prompt: str, source_FHWC: Pictures, strength: float, *, seed: int = 0) -> Pictures:
        """Make a clip anew after its prompt: clip_FHWC."""
        frames = [Image.fromarray(frame_HWC) for frame_HWC in source_FHWC]
        recipe = Recipe(task="video-to-video", height=64, width=64, num_inference_steps=1)
        with torch.inference_mode():
            given = adapt("ltx-latents", self._keys, {"latents": frames}, recipe)
        told = {"prompt": prompt, "denoise_strength": strength, **given, **_told(range(1), seed)}
        (clip_FHWC,) = _pixels(self._keys(**told))
        return np.asarray(clip_FHWC)

    @torch.inference_mode()
    def round_trip(self, picture_HWC: Pictures) -> Pictures:
        """Return what the autoencoder makes of a picture."""
        vae = self._text.vae
        signal_BCFHW = torch.from_numpy(picture_HWC).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
        decoded = vae.decode(vae.encode(signal_BCFHW).latent_dist.mode()).sample[0, :, 0]
        return np.asarray(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0))


def _told(numbers: range, seed: int) -> dict[str, Any]:
    """Return what every call is told, its outputs numbered for their seeds."""
    return {
        "negative_prompt": [""] * len(numbers) if len(numbers) > 1 else "",
        "height": 64,
        "width": 64,
        "num_frames": NUM_FRAMES,
        "frame_rate": FPS,
        "num_inference_steps": NUM_STEPS,
        "guidance_scale": GUIDANCE_SCALE,
        "generator": [torch.Generator().manual_seed(1000 * seed + number) for number in numbers],
        "output_type": "np",
    }


def _pixels(output: Any) -> Pictures:
    return np.asarray((output.frames * 255).round().astype(np.uint8))


def asked(count: int, seed: int, *, held_out: bool = False, **fixed: str) -> tuple[list[str], list[Scenario]]:
    """Return captions and what they ask for: of combinations that training showed, or beginning with those held out.

    Args:
        count: Of both.
        seed: Of both.
        held_out: Which combinations.
        fixed: Parts of the landscape, when not of those held out.
    """
    generator = np.random.default_rng((13, seed, held_out))
    combinations = sorted(HELD_OUT)
    scenarios: list[Scenario] = []
    while len(scenarios) < count:
        scene, hour, style = combinations[len(scenarios) % len(combinations)]
        given = {"scene": scene, "time": hour, "style": style} if held_out else fixed
        scenario = random_scenario(generator, **given)
        if shows_held_out(scenario) == held_out:
            scenarios.append(scenario)
    return [clip_caption(scenario, generator) for scenario in scenarios], scenarios


def measure_speed(projector: Projector) -> dict[str, float]:
    """Return times of one core."""
    clip_s = core_s(lambda: projector.show(["a beach at sunset, camera pans left"]))
    return {
        f"seconds a clip, {NUM_FRAMES} frames, {NUM_STEPS} steps, one core": clip_s,
        "seconds to load, libraries imported": projector.load_s,
    }


def measure_judge(count: int) -> dict[str, float]:
    """Return the rule's own accuracy on unseen drawn clips."""
    _, scenarios = asked(count, seed=1)
    right = [pan_of(draw_clip(scenario)) == scenario.pan for scenario in scenarios]
    return {"judge: pan right on drawn clips": float(np.mean(right))}


def measure_text(projector: Projector, count: int) -> dict[str, float]:
    """Return how often a clip moves, and stands in the light, as its prompt says."""
    prompts, scenarios = asked(count, seed=0)
    clips_NFHWC = projector.show(prompts, seed=1)
    figures = _right(clips_NFHWC, scenarios)
    strange_prompts, strange = asked(count, seed=0, held_out=True)
    for name, value in _right(projector.show(strange_prompts, seed=3), strange).items():
        figures[f"{name}, held-out combinations"] = value
    unasked = projector.show([""] * (count // 4), seed=2)
    figures["pan right, empty prompt"] = float(
        np.mean([pan_of(clip) == scenario.pan for clip, scenario in zip(unasked, scenarios, strict=False)])
    )
    figures["difference of neighbouring frames, of 255"] = float(np.mean([motion(clip) for clip in clips_NFHWC]))
    figures["difference of neighbouring frames, drawn clips"] = float(
        np.mean([motion(draw_clip(scenario)) for scenario in scenarios])
    )
    return figures


def _right(clips_NFHWC: Pictures, scenarios: Sequence[Scenario]) -> dict[str, float]:
    """Return the part of clips that is right in each thing."""
    firsts, lasts = judge(clips_NFHWC[:, 0]), judge(clips_NFHWC[:, -1])
    pan, begin, end, scene = np.transpose(
        [
            (
                pan_of(clip) == scenario.pan,
                first.time == scenario.landscape.time,
                last.time == ending(scenario).time,
                first.scene == scenario.landscape.scene,
            )
            for clip, scenario, first, last in zip(clips_NFHWC, scenarios, firsts, lasts, strict=True)
        ]
    )
    return {
        "pan and time of day right, from first frame to last": float((pan & begin & end).mean()),
        "pan right": float(pan.mean()),
        "time of day right, first frame": float(begin.mean()),
        "time of day right, last frame": float(end.mean()),
        "scene right, first frame": float(scene.mean()),
    }


def measure_given(projector: Projector, count: int) -> dict[str, float]:
    """Return how well a clip keeps the picture it begins with, and the key frames it passes through."""
    prompts, scenarios = asked(count, seed=2)
    drawn_NFHWC = np.stack([draw_clip(scenario) for scenario in scenarios])
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for number, (prompt, drawn_FHWC) in enumerate(zip(prompts, drawn_NFHWC, strict=True)):
        source_HWC = drawn_FHWC[0]
        begun_FHWC = projector.animate(prompt, source_HWC, seed=number)
        trip_HWC = projector.round_trip(source_HWC)
        note("from a picture: SSIM of the first frame with the picture's round trip", ssim(begun_FHWC[0], trip_HWC))
        note("from a picture: SSIM of the first frame with the picture", ssim(begun_FHWC[0], source_HWC))
        note("from a picture: difference of neighbouring frames, of 255", motion(begun_FHWC))
        note("from a picture: pan right", pan_of(begun_FHWC) == scenarios[number].pan)
        keys_KHWC = drawn_FHWC[list(KEY_FRAMES)]
        passed_FHWC = projector.pass_through(prompt, keys_KHWC, KEY_FRAMES, seed=number)
        for frame, key_HWC in zip(KEY_FRAMES, keys_KHWC, strict=True):
            note(
                f"key frame {frame}: SSIM with its picture's round trip",
                ssim(passed_FHWC[frame], projector.round_trip(key_HWC)),
            )
            note(f"key frame {frame}: SSIM with its picture", ssim(passed_FHWC[frame], key_HWC))
        note("key frames: SSIM of the third with the first, as drawn", ssim(keys_KHWC[2], keys_KHWC[0]))
        note("key frames: difference of neighbouring frames, of 255", motion(passed_FHWC))
        note("key frames: difference of neighbouring frames, drawn clips", motion(drawn_FHWC))
    return {name: float(np.mean(values)) for name, values in found.items()}


def measure_unlike(projector: Projector, count: int) -> dict[str, float]:
    """Return how well a clip keeps two key frames that no camera joins: two pictures of other places."""
    (_, begins), (prompts, ends) = asked(count, seed=3), asked(count, seed=4)
    likeness = []
    for number, (prompt, begin, end) in enumerate(zip(prompts, begins, ends, strict=True)):
        keys_KHWC = np.stack([draw_clip(begin)[0], draw_clip(end)[-1]])
        made_FHWC = projector.pass_through(prompt, keys_KHWC, (0, NUM_FRAMES - 1), seed=number)
        likeness.append([ssim(made_FHWC[frame], key_HWC) for frame, key_HWC in zip((0, -1), keys_KHWC, strict=True)])
    first, last = np.mean(likeness, axis=0)
    return {
        "key frames of two places: SSIM of the first with its picture": float(first),
        "key frames of two places: SSIM of the last with its picture": float(last),
    }


def measure_edits(projector: Projector, count: int) -> dict[str, float]:
    """Return how clips of a day become clips of a night, and what stays of them."""
    _, scenarios = asked(count, seed=5, time="day", style="photo")
    days = [replace(scenario, is_setting=False) for scenario in scenarios]
    nights = [replace(day, landscape=replace(day.landscape, time="night")) for day in days]
    drawn_NFHWC = np.stack([draw_clip(day) for day in days])
    generator = np.random.default_rng(14)
    made_NFHWC = np.stack(
        [
            projector.restyle(clip_caption(night, generator), drawn_FHWC, EDIT_STRENGTH, seed=number)
            for number, (night, drawn_FHWC) in enumerate(zip(nights, drawn_NFHWC, strict=True))
        ]
    )
    begins, ends = judge(made_NFHWC[:, 0]), judge(made_NFHWC[:, -1])
    are_nights = [begin.time == end.time == "night" for begin, end in zip(begins, ends, strict=True)]
    pans = [pan_of(clip) == day.pan for clip, day in zip(made_NFHWC, days, strict=True)]
    middle = NUM_FRAMES // 2
    made_NHWC, drawn_NHWC = made_NFHWC[:, middle], drawn_NFHWC[:, middle]
    title = f"from a clip, day to night, strength {EDIT_STRENGTH}"
    return {
        f"{title}: night from first frame to last": float(np.mean(are_nights)),
        f"{title}: pan kept": float(np.mean(pans)),
        f"{title}: edge correlation with the source": edge_correlation(made_NHWC, drawn_NHWC),
        f"{title}: with another drawn clip": edge_correlation(made_NHWC, np.roll(drawn_NHWC, 1, axis=0)),
    }


def measure(projector: Projector, part: float = 1.0) -> Iterator[tuple[str, float]]:
    """Yield every figure; `part` of the clips are made."""
    yield from measure_speed(projector).items()
    yield from measure_judge(round(300 * part)).items()
    yield from measure_text(projector, round(60 * part)).items()
    for measured in (measure_given, measure_unlike, measure_edits):
        yield from measured(projector, round(20 * part)).items()


def main() -> None:
    """Print the figures; write them into the card unless only a part is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=SHIPPED["tiny-video"], help="another model of this kind")
    parser.add_argument("--part", type=float, default=1.0, help="this part of the clips; writes no card below 1")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    figures = {}
    for name, value in measure(Projector(arguments.folder), arguments.part):
        figures[name] = value
        _LOG.info("%7.3f  %s", value, name)
    if arguments.part == 1 and arguments.folder == SHIPPED["tiny-video"]:
        write_card(figures, CARD)


if __name__ == "__main__":
    main()

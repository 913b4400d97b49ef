"""Draw the documentation's pictures: a campaign's sheet and strips, one picture step by step, what each parameter does.

python -m docs.generator.pictures out/demo docs/pictures     # after `make demo`; writes all but the gallery's
python -m docs.generator.pictures --rows docs/pictures       # those that need no campaign
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

import sdbatch
from sdbatch.checkpoints import SHIPPED, describe
from sdbatch.encode.asset import read_frames
from sdbatch.families.samplers import scheduler_of
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import load_model
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

SCALE = 2
COLUMNS = 6
TEXT_HEIGHT = 44
MARGIN = 8
PROMPT = "a serene beach at sunset with palm trees"
FRAMES_SHOWN = (0, 4, 8, 12, 16)
STEPS_SHOWN = (0, 3, 6, 9, 12, 15, 17, 20)
SAMPLERS_SHOWN = ("DDIM", "Euler a", "DPM++ 2M", "DPM++ 2M SDE", "UniPC", "LCM")
STEPS_OF_SAMPLERS = (2, 4, 12)
WEIGHTED = ("a beach at (sunset:{})", "a (snowy:{}) mountain")
WEIGHTS_SHOWN = (0.2, 0.5, 1.0, 1.4, 2.0)
LOOKS_SHOWN = ("photo", "pencil sketch", "abstract poster")
SCENES_SHOWN = ("a beach with palm trees at sunset", "snowy mountains on a clear day", "a village with a church tower")
SEEDS_SHOWN = (1, 2, 3, 4, 5)
GUIDANCE_SHOWN = (1.0, 2.0, 4.0, 8.0, 16.0)
SOURCE = "mountains with a lake by day"
EDITED = ("mountains with a lake at night in winter", "desert with cacti at sunset")
STRENGTHS_SHOWN = (0.3, 0.4, 0.6, 0.8, 1.0)


def sheet(campaign: str) -> Image.Image:
    """Return the campaign's square pictures, each over its prompt, edits after their source."""
    made = sdbatch.metadata(campaign).to_pylist()
    rows = [row for row in made if row["num_frames"] == 1 and row["width"] == row["height"] and row["n"] == 0]
    cells = []
    for row in sorted(rows, key=lambda row: (row["images"] or [""])[0]):
        for source in row["images"] or ():
            if (source, "the source") not in cells:
                cells.append((source, "the source"))
        cells.append((f"{campaign}/{row['asset']}", row["prompt"]))
    lines = -(-len(cells) // COLUMNS)
    side = 64 * SCALE
    picture = Image.new("RGB", (COLUMNS * (side + MARGIN) + MARGIN, lines * (side + TEXT_HEIGHT + MARGIN)), "white")
    pencil, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for number, (file, words) in enumerate(cells):
        left = MARGIN + number % COLUMNS * (side + MARGIN)
        top = MARGIN + number // COLUMNS * (side + TEXT_HEIGHT + MARGIN)
        asset = Image.open(file).convert("RGB")
        picture.paste(asset.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pencil.multiline_text((left, top + side + 3), textwrap.fill(words, 23), fill=(50, 50, 50), font=font, spacing=2)
    return picture


def strips(campaign: str) -> Image.Image:
    """Return frames of each clip beneath its prompt; what was given stands over its frame."""
    lines: list[tuple[str, dict[int, Image.Image]]] = []
    for row in sdbatch.metadata(campaign).to_pylist():
        if row["num_frames"] == 1:
            continue
        given = dict(zip(json.loads(row["recipe"]).get("keyframes") or [0], row["images"] or (), strict=False))
        pictures: dict[int, Image.Image] = {frame: Image.open(file) for frame, file in given.items()}
        if row["video"]:
            pictures = {frame: _frame(row["video"], frame) for frame in FRAMES_SHOWN}
        if pictures:
            lines.append((f"{row['prompt']}: given", pictures))
        asset = Path(campaign) / row["asset"]
        frames_FHWC = read_frames(asset.read_bytes(), asset.suffix[1:], row["height"], row["width"])
        made = {frame: Image.fromarray(frames_FHWC[frame]) for frame in FRAMES_SHOWN}
        lines.append((f"{row['prompt']}: frames {', '.join(map(str, FRAMES_SHOWN))}", made))
    side, words = 64 * SCALE, 20
    size = (len(FRAMES_SHOWN) * (side + MARGIN) + MARGIN, len(lines) * (side + words + MARGIN) + MARGIN)
    picture = Image.new("RGB", size, "white")
    pencil, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, (said, shown) in enumerate(lines):
        top = MARGIN + number * (side + words + MARGIN)
        pencil.text((MARGIN, top), said, fill=(50, 50, 50), font=font)
        for frame, cell in shown.items():
            left = MARGIN + FRAMES_SHOWN.index(frame) * (side + MARGIN)
            picture.paste(cell.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (left, top + words))
    return picture


def _frame(file: str, number: int) -> Image.Image:
    clip = Image.open(file)
    clip.seek(number)
    return clip.convert("RGB")


def steps() -> Image.Image:
    """Return what the latents of one picture decode to, from pure noise to the last of 20 steps."""
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED["tiny-sd"], local_files_only=True, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    start = torch.randn((1, pipeline.unet.config.in_channels, 16, 16), generator=generator)
    seen = [start]

    def look(
        _pipeline: object, _step: int, _timestep: object, state: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        seen.append(state["latents"])
        return state

    pipeline(
        PROMPT,
        num_inference_steps=20,
        guidance_scale=4.0,
        latents=start,
        callback_on_step_end=look,
        output_type="latent",
    )
    with torch.inference_mode():
        decoded = pipeline.vae.decode(torch.cat([seen[step] for step in STEPS_SHOWN])).sample
    pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    strip = Image.fromarray(np.concatenate(list(pixels), axis=1))
    return strip.resize((strip.width * SCALE * 3 // 4, strip.height * SCALE * 3 // 4), Image.Resampling.BICUBIC)


class _Tiny:
    """Makes pictures with the builtin tiny-sd."""

    def __init__(self) -> None:
        set_threads(1)
        entry = Model(path="builtin:tiny-sd")
        self._info = describe("tiny-sd", entry, {})
        self._model = load_model("tiny-sd", entry, self._info.revision, {})

    def edited(self, source: Image.Image, prompt: str, strength: float) -> Image.Image:
        """Return a picture made from another one in 20 steps, of which strength leaves the last ones."""
        values = {"task": "image-to-image", "prompt": prompt, "height": 64, "width": 64, "guidance_scale": 4.0}
        recipe = recipe_from({**values, "num_inference_steps": 20, "strength": strength, "images": ["sha256:00"]})
        item = Item(recipe=recipe, seed=7, images=(np.asarray(source),))
        return Image.fromarray(make_batch(self._model, [item], None).outputs[0].frames_FHWC[0])

    def picture(self, prompt: str, steps: int, sampler: str = "", seed: int = 7, **recipe: object) -> Image.Image:
        """Return the picture of a prompt, by a sampler of A1111's name."""
        values = {"task": "text-to-image", "prompt": prompt, "height": 64, "width": 64, "guidance_scale": 4.0, **recipe}
        if sampler:
            found, problem = scheduler_of(sampler, self._info.family, {})
            assert found is not None, problem
            values |= {"scheduler": found.class_name, "scheduler_options": dict(found.options)}
        item = Item(recipe=recipe_from({**values, "num_inference_steps": steps}), seed=seed)
        return Image.fromarray(make_batch(self._model, [item], None).outputs[0].frames_FHWC[0])


def table(columns: list[str], lines: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Return lines of pictures, each line and each column under its name."""
    side, words = 64 * SCALE, 20
    size = (len(columns) * (side + MARGIN) + MARGIN, words + len(lines) * (side + words + MARGIN) + MARGIN)
    picture = Image.new("RGB", size, "white")
    pencil, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, name in enumerate(columns):
        pencil.text((MARGIN + number * (side + MARGIN), MARGIN), name, fill=(50, 50, 50), font=font)
    for number, (said, cells) in enumerate(lines):
        top = MARGIN + words + number * (side + words + MARGIN)
        pencil.text((MARGIN, top), said, fill=(50, 50, 50), font=font)
        for place, cell in enumerate(cells):
            resized = cell.resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(resized, (MARGIN + place * (side + MARGIN), top + words))
    return picture


def samplers(tiny: _Tiny) -> Image.Image:
    """Return one prompt and seed by six samplers, at three numbers of steps."""
    lines = [
        (f"{steps} steps", [tiny.picture(PROMPT, steps, sampler) for sampler in SAMPLERS_SHOWN])
        for steps in STEPS_OF_SAMPLERS
    ]
    return table(list(SAMPLERS_SHOWN), lines)


def weights(tiny: _Tiny) -> Image.Image:
    """Return two prompts at five weights of one of their words."""
    lines = [
        (text.format("..."), [tiny.picture(text.format(one), 20, prompt_weights="compel") for one in WEIGHTS_SHOWN])
        for text in WEIGHTED
    ]
    return table([str(one) for one in WEIGHTS_SHOWN], lines)


def looks(tiny: _Tiny) -> Image.Image:
    """Return three prompts, each in three looks."""
    lines = [(look, [tiny.picture(f"{scene}, {look}", 20) for scene in SCENES_SHOWN]) for look in LOOKS_SHOWN]
    return table(["" for _ in SCENES_SHOWN], lines)


def seeds(tiny: _Tiny) -> Image.Image:
    """Return one prompt by five seeds."""
    return table(
        [f"seed {seed}" for seed in SEEDS_SHOWN], [("", [tiny.picture(PROMPT, 20, seed=s) for s in SEEDS_SHOWN])]
    )


def guidance(tiny: _Tiny) -> Image.Image:
    """Return one prompt and seed at five scales of guidance."""
    cells = [tiny.picture(PROMPT, 20, guidance_scale=scale) for scale in GUIDANCE_SHOWN]
    return table([f"guidance {scale:g}" for scale in GUIDANCE_SHOWN], [("", cells)])


def strength(tiny: _Tiny) -> Image.Image:
    """Return a picture, and what two prompts make of it at five strengths."""
    source = tiny.picture(SOURCE, 20)
    lines = [(prompt, [source, *(tiny.edited(source, prompt, one) for one in STRENGTHS_SHOWN)]) for prompt in EDITED]
    return table(["the source", *map(str, STRENGTHS_SHOWN)], lines)


def draw_rows(folder: Path) -> None:
    """Draw what rows may say."""
    tiny = _Tiny()
    looks(tiny).save(folder / "looks.jpg", quality=90)
    seeds(tiny).save(folder / "seeds.jpg", quality=90)
    guidance(tiny).save(folder / "guidance.jpg", quality=90)
    strength(tiny).save(folder / "strength.jpg", quality=88)
    samplers(tiny).save(folder / "samplers.jpg", quality=90)
    weights(tiny).save(folder / "weights.jpg", quality=90)


if __name__ == "__main__":
    draw_rows(Path(sys.argv[2]))
    if sys.argv[1] == "--rows":
        sys.exit()
    sheet(sys.argv[1]).save(Path(sys.argv[2]) / "demo-sheet.jpg", quality=90)
    strips(sys.argv[1]).save(Path(sys.argv[2]) / "demo-clips.jpg", quality=90)
    steps().save(Path(sys.argv[2]) / "demo-steps.jpg", quality=92)

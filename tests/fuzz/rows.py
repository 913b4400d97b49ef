"""Rows of chance through a whole run, and the same rows by hand: whether sdbatch makes what plain diffusers makes.

    seed --> manifest of every picture family and task --> sdbatch.run() --> assets
         --> a call of the family's own class a row --> pixels; those that differ are faults

The toys are those of the tests of families. An empty negative prompt is none here as there (docs/models/families.md).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from PIL import Image

import sdbatch
from sdbatch.families import FAMILIES, Family, Route
from sdbatch.families.samplers import scheduler_of

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "generate")]

from test_families_images import LONG_TEMPLATES, MAKERS, WANT_TORCHVISION, WAYS, _side  # noqa: E402

SAMPLERS: Final = (
    "Euler",
    "Euler a",
    "DPM++ 2M Karras",
    "DPM++ 2M SDE",
    "DPM2 a Exponential",
    "Heun",
    "DDIM",
    "LCM",
    "PLMS",
)
PROMPTS: Final = ("a red fox", "a beach at night", "two people, (snow:1) and cars", "blue sky", "ein Hütte", "x")
_NEEDS_PROCESSOR: Final = {*WANT_TORCHVISION, "Kandinsky 5 T2I", "Flux.2 dev"}
"""Families that read prompts through what only torchvision brings."""


def _ways() -> list[tuple[Family, str, Route]]:
    """Return the first route of each task of each family."""
    seen: dict[tuple[str, str], tuple[Family, str, Route]] = {}
    for family, task, route in WAYS:
        if family.title not in _NEEDS_PROCESSOR and not route.components:
            seen.setdefault((family.title, task), (family, task, route))
    return list(seen.values())


def _row(chance: random.Random, family: Family, task: str, route: Route, folder: Path) -> dict[str, Any]:
    side, multiple = _side(family), family.size_multiple
    height, width = chance.choice(
        list(family.sizes) or [(side, side), (side, side + multiple), (side + multiple, side)]
    )
    said: dict[str, Any] = {
        "prompt": chance.choice(PROMPTS),
        "negative_prompt": chance.choice([None, "ugly", "snow, people"]) if not route.negative_needs else None,
        "num_inference_steps": chance.choice([1, 2] if family.sizes else [4, 5, 7]),
        "guidance_scale": chance.choice([None, 1.0, 2.5, 4.0, 8.0]),
        "strength": chance.choice([0.5, 0.6, 0.75]),
        "scheduler": _sampler(chance, family),
        "images": [str(_picture(chance, folder, height, width))],
        "mask": str(_picture(chance, folder, height, width, is_mask=True)),
    }
    quick = {"max_sequence_length": 64} if family.title not in LONG_TEMPLATES else {}
    parameters = {
        **quick,
        "output_resolution": 64,
        "guidance_rescale": chance.choice([0.0, 0.7]),
        "eta": chance.choice([0.0, 0.5]),
    }
    own = {name: value for name, value in parameters.items() if name in route.parameters}
    return {
        "task": task,
        "height": height,
        "width": width,
        "seed": chance.randrange(2**31),
        "num_outputs": chance.choice([1, 1, 2]),
        "parameters": json.dumps(own) if own else None,
        **{name: value for name, value in said.items() if name in route.arguments},
    }


def _sampler(chance: random.Random, family: Family) -> str | None:
    taken = [name for name in SAMPLERS if family.schedulers and scheduler_of(name, family, {})[0]]
    return chance.choice([None, *taken])


def _picture(chance: random.Random, folder: Path, height: int, width: int, *, is_mask: bool = False) -> Path:
    number = chance.randrange(5)
    path = folder / f"{'mask' if is_mask else 'picture'}-{number}-{height}-{width}.png"
    patches = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    pixels = (patches[..., 0] // 128) * 255 if is_mask else patches
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(path)
    return path


def compare_rows(
    count: int, folder: Path, seed: int, tell: Callable[[str], None] = lambda _: None
) -> tuple[int, list[str]]:
    """Make so many rows in a run and by hand.

    Args:
        count: Rows; the families and tasks take turns.
        folder: Folder, made here, for models, sources and the campaign.
        seed: Of the rows.
        tell: Is told what is done.

    Returns:
        How many outputs were compared, and the faults: rows that failed, and outputs that differ by more than 1 of 255.
    """
    diffusers.logging.set_verbosity_error()
    folder.mkdir(parents=True, exist_ok=True)
    chance, ways = random.Random(seed), _ways()
    chance.shuffle(ways)
    rows, found = [], {}
    for number in range(count):
        family, task, route = ways[number % len(ways)]
        name = f"r{number}"
        model = f"m{list(MAKERS).index(family.title)}"
        if not (folder / model).exists():
            MAKERS[family.title](folder / model)
        rows.append({"id": name, "model": model, **_row(chance, family, task, route, folder)})
        found[name] = (rows[-1], family, route)
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {row["model"]: {"path": str(folder / row["model"])} for row in rows}
    output = folder / "campaign"
    sources = {"allow": [str(folder)]}
    tell(f"rows: {count} rows of {len(models)} models")
    sdbatch.run(
        {"manifest": str(manifest), "output": str(output), "sources": sources, "models": models}, in_process=True
    )
    faults = []
    pipelines: dict[tuple[str, str], Any] = {}
    made = sdbatch.metadata(str(output)).to_pylist()
    for asset in made:
        row, family, route = found[asset["id"]]
        if asset["status"] != "ok":
            faults.append(f"{row}: {asset['status']}: {asset['error_message']}")
            continue
        ours = np.asarray(Image.open(output / asset["asset"]).convert("RGB")).astype(int)
        theirs = np.round(_by_hand(row, family, route, folder, asset["seed"], pipelines) * 255)
        most = int(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else 255
        if most > 1:
            faults.append(f"{row}: output {asset['n']} differs from {route.pipeline}'s by {most} of 255")
    lacking = sum(row["num_outputs"] for row in rows) - len(made)
    return len(made), [*faults, *([f"{lacking} outputs are missing"] if lacking else [])]


def _by_hand(
    row: Mapping[str, Any], family: Family, route: Route, folder: Path, seed: int, pipelines: dict[Any, Any]
) -> Any:
    """Return what a call of the route's class makes of a row; image_HWC, 0 to 1."""
    key = (row["model"], route.pipeline)
    if key not in pipelines:
        pipelines[key] = getattr(diffusers, route.pipeline).from_pretrained(folder / row["model"])
        pipelines[key].set_progress_bar_config(disable=True)
    pipeline = pipelines[key]
    index = json.loads(
        (folder / row["model"] / "model_index.json").read_text()
    )  # the pipeline's own follows what is set
    own = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / row["model"], subfolder="scheduler")
    pipeline.scheduler = own
    if row.get("scheduler") and (asked := scheduler_of(row["scheduler"], family, {})[0]):
        pipeline.scheduler = getattr(diffusers, asked.class_name).from_config(own.config, **asked.options)
    columns = {**row, "area": row["height"] * row["width"]}
    if row.get("images"):
        columns["images"] = Image.open(row["images"][0])
    if row.get("mask"):
        columns["mask"] = Image.open(row["mask"])
    if row.get("negative_prompt") is None and family is FAMILIES["Qwen-Image"]:
        columns["negative_prompt"] = ""  # it would not be guided
    said = {
        name: columns[column] for column, name in route.arguments.items() if name and columns.get(column) is not None
    }
    if route.adapter == "guiders" and row.get("guidance_scale"):
        for name in ("guider", "ocr_guider"):
            setattr(pipeline, name, getattr(pipeline, name).new(guidance_scale=row["guidance_scale"]))
    if route.adapter == "own-size":
        pipeline.default_sample_size = (row["height"] * row["width"]) ** 0.5 / pipeline.vae_scale_factor
    torch.manual_seed(seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    more = {**route.constants, **json.loads(row["parameters"] or "{}")}
    return pipeline(**said, **more, generator=generator, output_type="np")[0][0]

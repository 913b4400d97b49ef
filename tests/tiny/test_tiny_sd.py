"""tiny-sd paints what it is asked for: a small part of `python -m tiny.measure`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sdbatch
from sdbatch.checkpoints import SHIPPED
from tiny.judge import accuracy, judge
from tiny.measure import STRENGTHS, Painter, asked, edge_correlation, seen, sources

JobOf = Callable[..., dict[str, Any]]
WriteManifest = Callable[..., str]


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter()


def test_the_judge_is_right_on_drawn_pictures_it_never_saw() -> None:
    landscapes, pictures = sources(150, seed=10)
    wanted = [seen(landscape) for landscape in landscapes]

    assert accuracy(judge(pictures), wanted, "scene") >= 0.97
    assert accuracy(judge(pictures), wanted, "time", "style") == 1.0
    assert accuracy(judge(np.roll(pictures, 1, axis=0)), wanted, "scene", "time", "style") < 0.1


@pytest.mark.long
def test_held_out_captions_become_their_pictures_and_no_caption_does_not(painter: Painter) -> None:
    prompts, wanted = asked(16, seed=10)
    told, untold = judge(painter.paint(prompts, seed=10)), judge(painter.paint([""] * 8, seed=10))

    assert accuracy(told, wanted, "scene", "time") >= 0.8
    assert accuracy(told, wanted, "style") >= 0.9
    assert accuracy(untold, wanted[:8], "scene", "time") <= 0.25


def test_day_becomes_night_and_the_layout_stays(painter: Painter) -> None:
    landscapes, drawn = sources(6, seed=11, time="day", style="photo")
    made = painter.edit([f"{landscape.scene} at night" for landscape in landscapes], drawn, 0.7)

    assert [verdict.time for verdict in judge(made)].count("night") >= 5
    assert edge_correlation(made, drawn) > edge_correlation(made, np.roll(drawn, 1, axis=0)) + 0.1


def test_a_lower_strength_keeps_more_of_the_source(painter: Painter) -> None:
    landscapes, drawn = sources(2, seed=12, time="day", style="photo")
    prompts = [f"{landscape.scene} at night" for landscape in landscapes]
    changed = [np.abs(painter.edit(prompts, drawn, strength).astype(int) - drawn).mean() for strength in STRENGTHS]

    assert changed == sorted(changed)
    assert changed[-1] > 1.5 * changed[0]


def test_a_negative_prompt_keeps_away_what_it_names(painter: Painter) -> None:
    against = judge(painter.paint([""] * 4, seed=13, negative_prompt="at night"))
    towards = judge(painter.paint(["at night"] * 4, seed=13))

    assert [verdict.time for verdict in against].count("night") == 0
    assert [verdict.time for verdict in towards].count("night") >= 3


def test_a_campaign_of_prompts_and_sources_shows_what_its_rows_say(
    tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf
) -> None:
    _, (beach,) = sources(1, seed=14, scene="beach", time="day", weather="clear", style="photo")
    Image.fromarray(beach).save(tmp_path / "beach.png")
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:30] = 255
    Image.fromarray(mask).save(tmp_path / "sky.png")
    source = {"images": str(tmp_path / "beach.png")}
    rows = [
        {"id": "said", "prompt": "a serene beach at sunset"},
        {"id": "sketch", "prompt": "city skyline by night, pencil sketch"},
        {"id": "edit", "prompt": "a beach at night", "task": "image-to-image", "strength": 0.7, **source},
        {"id": "sky", "prompt": "a beach at sunset", "task": "inpainting", "mask": str(tmp_path / "sky.png"), **source},
    ]
    models = {"tiny-sd": {"path": "builtin:tiny-sd", "batch_size": 2}}
    defaults = {"task": "text-to-image", "model": "tiny-sd", "num_inference_steps": 20, "guidance_scale": 4.0}
    job = sdbatch.load_job(job_of(write_manifest(rows), models=models, defaults=defaults))
    result = sdbatch.run(job, in_process=True)
    made = {row["id"]: row["asset"] for row in sdbatch.metadata(job).to_pylist()}
    pictures = {name: np.asarray(Image.open(f"{job.output}/{asset}").convert("RGB")) for name, asset in made.items()}
    verdicts = dict(zip(pictures, judge(np.stack(list(pictures.values()))), strict=True))

    assert result.exit_code == 0
    assert (verdicts["said"].scene, verdicts["said"].time, verdicts["said"].style) == ("beach", "sunset", "photo")
    assert (verdicts["sketch"].scene, verdicts["sketch"].style) == ("city", "sketch")
    assert verdicts["edit"].time == "night"
    assert verdicts["sky"].time == "sunset"
    changed = np.abs(pictures["sky"].astype(int) - beach).mean(axis=(1, 2))
    assert changed[:28].mean() > 2 * changed[36:].mean()


def test_the_shipped_weights_are_half_precision_and_small() -> None:
    files = [file for file in SHIPPED["tiny-sd"].rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) < 18 << 20
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".txt"}

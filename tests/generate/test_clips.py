"""Clips of every family's real classes at toy size: what their pixels depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import long_but
from support.studio import KANDINSKY_TEXT, LTX2_BLOCKS, Case, Pixels, Studio, base_row, difference

from sdbatch.generate.batch import make_batch

CASES = [
    Case(model="sd", task="text-to-video", row={"num_frames": 4}, size=32),
    Case(model="sd", task="image-to-video", images=2, row={"num_frames": 4}, size=32),
    Case(model="animatediff", task="text-to-video", row={"num_frames": 4}, size=32),
    Case(model="animatediff", task="video-to-video", video=True, row={"num_frames": 4}, size=32),
    Case(model="sparsectrl", task="image-to-video", images=2, row={"num_frames": 4}, size=32),
    Case(model="svd", task="image-to-video", images=1, row={"num_frames": 4}, unread=frozenset({"prompt"})),
    Case(model="wan-t2v", task="text-to-video"),
    Case(model="wan-t2v", task="video-to-video", video=True, row={"strength": 0.5}),
    Case(model="wan-t2v-a14b", task="text-to-video", row={"parameters": '{"guidance_scale_2": 3.0}'}),
    Case(model="wan-ti2v", task="text-to-video"),
    Case(model="wan-ti2v", task="image-to-video", images=1),
    Case(model="wan-i2v", task="image-to-video", images=1),
    Case(model="wan-flf2v", task="image-to-video", images=2),
    Case(model="wan-i2v-a14b", task="image-to-video", images=1),
    Case(model="wan-i2v-a14b", task="image-to-video", images=3, row={"num_frames": 9}),
    Case(model="wan-vace", task="text-to-video"),
    Case(model="wan-vace", task="image-to-video", images=2),
    Case(model="wan-vace", task="video-to-video", video=True),
    Case(model="ltx", task="text-to-video", row={"num_frames": 9}),
    Case(model="ltx", task="image-to-video", images=1, row={"num_frames": 9}),
    Case(model="ltx", task="image-to-video", images=3, row={"num_frames": 9}),
    Case(model="ltx", task="video-to-video", video=True, row={"num_frames": 9, "strength": 0.5}),
    Case(model="ltx-told-time", task="text-to-video", row={"num_frames": 9}),
    Case(model="ltx-told-time", task="image-to-video", images=1, row={"num_frames": 9}),
    Case(model="ltx2", task="text-to-video", row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="ltx2", task="image-to-video", images=1, row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="ltx2", task="image-to-video", images=3, row={"num_frames": 9, "parameters": LTX2_BLOCKS}),
    Case(model="cogvideox", task="text-to-video", row={"num_frames": 9}),
    Case(model="cogvideox", task="video-to-video", video=True, row={"num_frames": 9, "strength": 0.5}),
    Case(model="cogvideox-i2v", task="image-to-video", images=1, row={"num_frames": 9}),
    Case(model="hunyuan", task="text-to-video"),
    Case(model="hunyuan-i2v", task="image-to-video", images=1),
    Case(model="kandinsky", task="text-to-video", row={"parameters": KANDINSKY_TEXT}),
    Case(model="kandinsky-i2v", task="image-to-video", images=1, row={"num_frames": 17, "parameters": KANDINSKY_TEXT}),
]

SHORT = (
    "sd: text-to-video from text",
    "animatediff: video-to-video from a clip",
    "sparsectrl: image-to-video from 2 images",
    "svd: image-to-video from 1 images",
    "wan-t2v: text-to-video from text",
    "wan-i2v: image-to-video from 1 images",
    "wan-i2v-a14b: image-to-video from 3 images",
    "wan-vace: image-to-video from 2 images",
    "ltx: image-to-video from 3 images",
    "ltx2: text-to-video from text",
    "cogvideox: video-to-video from a clip",
    "hunyuan: text-to-video from text",
    "kandinsky-i2v: image-to-video from 1 images",
)
"""Each pipeline's kind and each task; `make long` has the others."""

OF_RULES = list({case.model: case for case in reversed(CASES) if case.images < 2}.values())[::-1]
"""The first case of each model that a clip of a few frames has room for."""
OF_FLOW = [case for case in OF_RULES if case.model.startswith(("ltx", "hunyuan", "kandinsky"))]


@pytest.mark.parametrize(
    "case", long_but([case for case in CASES if case.name in SHORT], CASES), ids=[case.name for case in CASES]
)
def test_a_clip_depends_on_its_row_and_on_nothing_else(case: Case, studio: Callable[[str], Studio]) -> None:
    made = studio(case.model)
    row = base_row(case)
    item = made.item(row)
    shares = made.info.family.route_of(item.recipe).rows
    other = _others(case, row)

    changed: dict[str, Pixels] = {}
    if shares == "single":
        first, again = made.make(row)[0], made.make(row)[0]
    else:
        first, changed["seed"] = made.make(row, other["seed"])
        neighbour = "video" if case.video else "last image" if shares == "list" and case.images else "prompt"
        again, changed[neighbour] = made.make(row, other[neighbour])
        # Its place in a batch and the batch's size may change the last bits, a mix-up changes much more.
        assert difference(changed[neighbour], made.make(other[neighbour])[0]) <= 1
    changed |= {name: made.make(other[name])[0] for name in other.keys() - changed.keys()}

    assert first.shape == (item.recipe.num_frames, case.size, case.size, 3)
    assert first.dtype == np.uint8
    for name, frames in changed.items():
        assert difference(first, frames) >= 3, name
    assert difference(first, again) == 0


@pytest.mark.parametrize("case", OF_RULES, ids=[case.model for case in OF_RULES])
def test_the_least_clip_of_a_family_s_rules_is_made_exactly(case: Case, studio: Callable[[str], Studio]) -> None:
    """A multiple that is too small gives clips of other sizes or lengths than the rows ask for."""
    made = studio(case.model)
    family = made.info.family
    height, width = 2 * family.size_multiple, 3 * family.size_multiple
    num_frames = family.frame_multiple * -(-max(family.frames_min - 1, 1) // family.frame_multiple) + 1
    row = {**base_row(case), "height": height, "width": width, "num_frames": num_frames}

    assert made.one(row).frames_FHWC.shape == (num_frames, height, width, 3)


@pytest.mark.parametrize("case", OF_FLOW, ids=[case.model for case in OF_FLOW])
def test_the_table_knows_whether_a_clip_s_scheduler_is_given_its_sigmas(
    case: Case, studio: Callable[[str], Studio]
) -> None:
    """FlowMatchHeun takes none; where a family gives some, `check` refuses it as the model's own."""
    made = studio(case.model)
    family = made.info.family
    item = made.item(base_row(case))
    item = replace(item, recipe=replace(item.recipe, scheduler="FlowMatchHeunDiscreteScheduler"))

    with pytest.raises((ValueError, TypeError)) if family.gives_sigmas else nullcontext():
        make_batch(made.loaded, [item], None)


def _others(case: Case, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the row with one thing changed, by the thing's name."""
    other: dict[str, dict[str, Any]] = {"seed": {**row, "seed": 2}}
    if "prompt" not in case.unread:
        other["prompt"] = {**row, "prompt": "zz blue sky"}
    if case.images:
        other["last image"] = {**row, "images": [*row["images"][:-1], "9"]}
    if case.video:
        other["video"] = {**row, "video": "9"}
    return other

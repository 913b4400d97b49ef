"""Schedulers while a call runs: the noise that they draw is a row's own, and a copy of one keeps its own steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    LTXEulerAncestralRFScheduler,
    UniPCMultistepScheduler,
)
from support.studio import LTX2_BLOCKS, Case, Studio, base_row, difference, open_studio, resolve
from support.toy_clips import make_ltx, make_wan_t2v
from support.toy_models import make_tiny_sd3, make_tiny_zimage

from sdbatch.checkpoints import ModelInfo, describe
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.load.schedulers import scheduler_from
from sdbatch.job import parse_job
from sdbatch.recipe import recipe_from

LTX = Case(model="ltx", task="text-to-video", row={"num_frames": 9, "num_inference_steps": 3})
LTX2 = Case(model="ltx2", task="text-to-video", row={"num_frames": 9, "parameters": LTX2_BLOCKS})


def _item(prompt: str, seed: int) -> Item:
    values = {
        "task": "text-to-image",
        "prompt": prompt,
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "scheduler": "",
        "scheduler_options": {},
    }
    return Item(recipe=recipe_from(values), seed=seed)


def _own_scheduler(folder: Path, own: Any) -> None:
    """Give a model's folder another scheduler."""
    index = folder / "model_index.json"
    own.save_pretrained(folder / "scheduler")
    index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", type(own).__name__]}))


def _loaded(folder: Path, **options: Any) -> tuple[ModelInfo, LoadedModel]:
    model = parse_job({"manifest": "m", "output": "o", "models": {"tiny": {"path": str(folder), **options}}}).models[
        "tiny"
    ]
    info = describe("tiny", model, {})
    return info, load_model("tiny", model, info.revision, {})


@pytest.mark.parametrize(
    "scheduler",
    [lambda: FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), FlowMatchLCMScheduler],
    ids=["stochastic sampling", "consistency model"],
)
def test_noise_of_a_model_s_own_scheduler_is_the_row_s(scheduler: Callable[[], Any], tmp_path: Path) -> None:
    set_threads(1)
    make_tiny_sd3(tmp_path / "model")
    _own_scheduler(tmp_path / "model", scheduler())
    _, loaded = _loaded(tmp_path / "model")

    def made(*items: Item) -> list[Any]:
        return [output.frames_FHWC for output in make_batch(loaded, items, None).outputs]

    one, two = _item("a beach", 1), _item("a fox", 2)
    first, second = made(one, two)

    assert difference(first, made(one)[0]) <= 1
    assert difference(second, made(two)[0]) <= 1
    assert difference(second, made(two, one)[0]) == 0
    assert difference(first, made(_item("a beach", 3))[0]) > 1


def test_noise_that_a_scheduler_draws_for_a_clip_is_the_row_s(tmp_path: Path) -> None:
    FlowMatchEulerDiscreteScheduler(stochastic_sampling=True).save_pretrained(tmp_path / "noisy")
    made = open_studio("ltx", tmp_path / "model", components={"scheduler": str(tmp_path / "noisy")})
    row = base_row(LTX)
    other = {**row, "prompt": "zz blue sky", "seed": 2}

    first, second = made.make(row, other)

    assert difference(first, made.make(row)[0]) <= 1
    assert difference(second, made.make(other)[0]) <= 1
    assert difference(first, made.make({**row, "seed": 3})[0]) >= 3


def test_the_sound_of_a_clip_has_the_steps_of_a_scheduler_with_options(tmp_path: Path) -> None:
    same = {"class": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    made = open_studio("ltx2", tmp_path / "model", schedulers={"same": same, "other": {**same, "shift": 5.0}})
    row = base_row(LTX2)

    own, asked, other = (made.one({**row, "scheduler": name}) for name in (None, "same", "other"))

    assert own.sound is not None
    assert asked.sound is not None
    assert other.sound is not None
    assert np.array_equal(own.frames_FHWC, asked.frames_FHWC)
    assert np.array_equal(own.sound.samples_CT, asked.sound.samples_CT)
    assert not np.array_equal(own.sound.samples_CT, other.sound.samples_CT)


@pytest.mark.parametrize("asked", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_a_scheduler_asked_for_is_of_a_flow_and_shifted_as_the_model_s_own(asked: str, tmp_path: Path) -> None:
    euler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    said = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=5.0)

    one, two = (scheduler_from(own, asked, {}) for own in (euler, said))
    for scheduler in (one, two):
        scheduler.set_timesteps(6)

    assert one.config.prediction_type == "flow_prediction"
    assert torch.equal(one.sigmas, two.sigmas)
    back = scheduler_from(said, "FlowMatchEulerDiscreteScheduler", {})
    again = scheduler_from(euler, "FlowMatchEulerDiscreteScheduler", {"shift": 2.0})
    assert (back.config.shift, again.config.shift) == (5.0, 2.0)
    assert scheduler_from(euler, asked, {"flow_shift": 2.0}).config.flow_shift == 2.0


def test_a_row_of_wan_may_ask_for_another_scheduler_than_a_flow_match_of_its_folder(tmp_path: Path) -> None:
    row = {**base_row(Case(model="wan-t2v", task="text-to-video")), "num_inference_steps": 4}
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 5.0}
    clips = []
    for own in (FlowMatchEulerDiscreteScheduler(shift=5.0), UniPCMultistepScheduler(**flow)):
        folder = tmp_path / type(own).__name__
        make_wan_t2v(folder)
        _own_scheduler(folder, own)
        made = Studio(*_loaded(folder))
        clips.append(made.make({**row, "scheduler": "UniPCMultistepScheduler"})[0])

    assert np.array_equal(clips[0], clips[1])


def test_a_scheduler_that_waits_to_be_told_its_shift_is_refused_where_nobody_tells_it(tmp_path: Path) -> None:
    """LTX-Video's of 0.9.1 and before; its pipeline of key frames and clips was made for later ones."""
    own = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
    )
    preset = {"class": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    make_ltx(tmp_path)
    _own_scheduler(tmp_path, own)
    made = Studio(*_loaded(tmp_path, schedulers={"keys": preset}))
    told = base_row(LTX)
    untold = {**base_row(Case(model="ltx", task="image-to-video", images=2)), "num_frames": 9}

    (_, refused, asked), faults = resolve(made.info, told, untold, {**untold, "scheduler": "keys"})

    assert refused is None
    assert asked is not None
    assert [fault.column for fault in faults] == ["scheduler"]
    assert (
        "LTXConditionPipeline does not tell it; name a preset with a shift (models.tiny.schedulers: "
        in faults[0].message
    )
    assert made.make(told)[0].any()
    assert made.make({**untold, "scheduler": "keys"})[0].any()
    item = made.item({**untold, "scheduler": "keys"})
    with pytest.raises(ValueError, match="`mu` must be passed"):
        make_batch(made.loaded, [replace(item, recipe=replace(item.recipe, scheduler="", more={}))], None)


def test_a_scheduler_that_scales_no_noise_is_refused_where_a_row_begins_from_a_picture(tmp_path: Path) -> None:
    make_tiny_sd3(tmp_path)
    _own_scheduler(tmp_path, UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"))
    made = Studio(*_loaded(tmp_path))
    sized = {"num_inference_steps": 2, "height": 64, "width": 64, "seed": 1, "model": "tiny"}
    text = {**sized, "task": "text-to-image", "prompt": "a beach"}
    own = {**sized, "task": "image-to-image", "prompt": "a beach", "images": ["7"], "strength": 0.5}
    asked = {**own, "scheduler": "FlowMatchEulerDiscreteScheduler"}

    (_, refused, _), faults = resolve(made.info, text, own, asked)

    assert refused is None
    assert [fault.column for fault in faults] == ["scheduler"]
    assert "calls scale_noise, which tiny's own, UniPCMultistepScheduler, does not have; say" in faults[0].message
    assert made.make(text)[0].any()
    assert made.make(asked)[0].any()
    item = made.item(asked)
    with pytest.raises(AttributeError, match="scale_noise"):
        make_batch(made.loaded, [replace(item, recipe=replace(item.recipe, scheduler="", more={}))], None)


@pytest.mark.parametrize(
    ("make", "own", "row", "says"),
    [
        (
            make_tiny_zimage,
            UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            {"task": "text-to-image", "prompt": "a fox", "height": 64, "width": 64},
            "cannot be called by ZImagePipeline: that is tiny's own, UniPCMultistepScheduler; say FlowMatchEulerDiscr",
        ),
        (
            make_ltx,
            UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            {**base_row(Case(model="ltx", task="image-to-video", images=2)), "num_frames": 9},
            "cannot be called by LTXConditionPipeline: that is tiny's own, UniPC",
        ),
        (
            make_ltx,
            FlowMatchLCMScheduler(),
            {**base_row(Case(model="ltx", task="image-to-video", images=2)), "num_frames": 9},
            "cannot be called by LTXConditionPipeline: that is tiny's own, FlowMatchLCM",
        ),
        (
            make_wan_t2v,
            LTXEulerAncestralRFScheduler(),
            {**base_row(Case(model="wan-t2v", task="video-to-video", video=True)), "strength": 0.5},
            "cannot be called by WanVideoToVideoPipeline: that is tiny's own, LTXEulerAncestralRFScheduler; say DPM",
        ),
    ],
    ids=["Z-Image", "LTX UniPC", "LTX LCM", "Wan"],
)
def test_a_scheduler_that_a_pipeline_cannot_call_is_refused_where_a_row_names_no_other(
    make: Callable[[Path], None], own: Any, row: dict[str, Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path)
    _own_scheduler(tmp_path, own)
    made = Studio(*_loaded(tmp_path))
    row = {**row, "num_inference_steps": 2, "seed": 1, "model": "tiny"}
    asked = {**row, "scheduler": made.info.family.schedulers[0]}

    (refused, _), faults = resolve(made.info, row, asked)

    assert refused is None
    assert [fault.column for fault in faults] == ["scheduler"]
    assert says in faults[0].message
    assert made.make(asked)[0].any()
    item = made.item(asked)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        make_batch(made.loaded, [replace(item, recipe=replace(item.recipe, scheduler="", more={}))], None)


def test_heun_begins_from_a_clip_for_one_row_alone(tmp_path: Path) -> None:
    """So that it is refused as Wan's own: rows share a call."""
    make_wan_t2v(tmp_path)
    _own_scheduler(tmp_path, FlowMatchHeunDiscreteScheduler())
    made = Studio(*_loaded(tmp_path))
    row = {**base_row(Case(model="wan-t2v", task="video-to-video", video=True)), "strength": 0.5}
    (refused,), _ = resolve(made.info, row)
    item = made.item({**row, "scheduler": "UniPCMultistepScheduler"})
    own = replace(item, recipe=replace(item.recipe, scheduler="", more={}))

    assert refused is None
    assert make_batch(made.loaded, [own], None).outputs[0].is_finite
    with pytest.raises(RuntimeError, match="must match the size"):
        make_batch(made.loaded, [own, replace(own, seed=2)], None)

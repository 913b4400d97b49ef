"""Schedulers with options on toy models: what moves pixels, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.revisions import PINNED
from support.toy_models import make_tiny_sd3

from sdbatch.checkpoints import BUILTINS, describe
from sdbatch.families import FAMILIES
from sdbatch.families.samplers import SAMPLERS, scheduler_of
from sdbatch.families.scheduler_options import REQUIRES
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

SD = FAMILIES["Stable Diffusion 1.x/2.x"]
SOURCE = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
NAMES = [name for name in SAMPLERS if not {cls for cls, _ in SAMPLERS[name]} & REQUIRES.keys()]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    set_threads(1)
    return load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {})


def _item(name: str, prompt: str = "a beach", seed: int = 1, image: Any = None, **recipe: Any) -> Item:
    found, problem = scheduler_of(name, SD, {})
    assert found is not None, problem
    return _asked(found.class_name, found.options, prompt, seed, image, **recipe)


def _asked(
    cls: str, options: Mapping[str, Any], prompt: str = "a beach", seed: int = 1, image: Any = None, **recipe: Any
) -> Item:
    values = {
        "task": "text-to-image" if image is None else "image-to-image",
        "prompt": prompt,
        "height": 64,
        "width": 64,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "scheduler": cls,
        "scheduler_options": dict(options),
        **({} if image is None else {"strength": 0.8, "images": ["sha256:00"]}),
        **recipe,
    }
    return Item(recipe=recipe_from(values), seed=seed, images=() if image is None else (image,))


def _pixels(model: LoadedModel, *items: Item, pad_to: int | None = None) -> list[NDArray[np.uint8]]:
    return [output.frames_FHWC[0] for output in make_batch(model, items, pad_to).outputs]


def test_karras_moves_pixels(model: LoadedModel) -> None:
    (plain,) = _pixels(model, _item("DPM++ 2M"))
    (karras,) = _pixels(model, _item("DPM++ 2M Karras"))
    (comfy,) = _pixels(model, _item("dpmpp_2m_karras"))
    (again,) = _pixels(model, _item("DPM++ 2M"))

    assert not np.array_equal(plain, karras)
    assert np.array_equal(karras, comfy)
    assert np.array_equal(plain, again)  # the options of one call are not those of the next


@pytest.mark.parametrize(("name", "image"), [*((name, None) for name in NAMES), ("LCM", SOURCE), ("TCD", SOURCE)])
def test_every_sampler_makes_pictures_of_its_own(model: LoadedModel, name: str, image: Any) -> None:
    outputs = make_batch(model, [_item(name, image=image), _item(name, seed=2, image=image)], None).outputs

    assert all(output.is_finite for output in outputs)
    assert not np.array_equal(outputs[0].frames_FHWC, outputs[1].frames_FHWC)
    assert outputs[0].frames_FHWC.std() > 1


def test_karras_over_a_cosine_schedule_gives_two_steps_one_timestep_and_no_row_fails() -> None:
    set_threads(1)
    shipped = Model(path="builtin:tiny-sd")
    cosine = load_model("sd", shipped, describe("sd", shipped, {}).revision, {})
    outputs = make_batch(cosine, [_item("DPM++ 2M Karras"), _item("DPM++ 2M Karras", seed=2)], None).outputs

    assert all(output.is_finite for output in outputs)
    assert not np.array_equal(outputs[0].frames_FHWC, outputs[1].frames_FHWC)


@pytest.mark.parametrize("name", ["DPM++ 2M SDE Karras", "LCM", "Euler a SGM Uniform"])
def test_beside_others_in_a_batch_of_its_size_a_row_is_the_same(model: LoadedModel, name: str) -> None:
    (alone,) = _pixels(model, _item(name), pad_to=3)
    crowd = [_item(name, f"crowd {n}", seed=50 + n) for n in range(2)]

    assert np.array_equal(alone, _pixels(model, *crowd, _item(name), pad_to=3)[2])


def test_lightning_s_settings_are_taken(model: LoadedModel) -> None:
    (leading,) = _pixels(model, _item("Euler", guidance_scale=0.0))
    (trailing,) = _pixels(model, _item("Euler SGM Uniform", guidance_scale=0.0))

    assert not np.array_equal(leading, trailing)


def test_a_flow_s_shift_and_karras_move_pixels(tmp_path: Path) -> None:
    make_tiny_sd3(tmp_path)
    sd3 = load_model("sd3", Model(path=str(tmp_path), revision=PINNED), PINNED, {})
    flow = "FlowMatchEulerDiscreteScheduler"
    made = [_pixels(sd3, _asked(flow, options))[0] for options in ({}, {"shift": 5.0}, {"use_karras_sigmas": True})]

    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert np.array_equal(made[0], _pixels(sd3, _asked(flow, {"shift": 1.0}))[0])  # the folder's own

"""One pipeline call on real diffusers classes: what a row's pixels depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.revisions import PINNED
from support.toy_models import make_tiny_sdxl

from sdbatch.checkpoints import BUILTINS
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import BatchResult, Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

SOURCE = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    set_threads(1)
    if request.param == "sd":
        return load_model("tiny", Model(path="builtin:tiny-random"), BUILTINS["tiny-random"].revision, {})
    folder = tmp_path_factory.mktemp("sdxl")
    make_tiny_sdxl(folder)
    return load_model("xl", Model(path=str(folder), revision=PINNED), PINNED, {})


def _item(prompt: str = "a beach", seed: int = 1, *, image: Any = None, **recipe: Any) -> Item:
    task = "text-to-image" if image is None else "image-to-image"
    values = {
        "task": task,
        "prompt": prompt,
        "negative_prompt": "",
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        **({} if image is None else {"strength": 0.8, "images": ["sha256:00"]}),
        **recipe,
    }
    return Item(recipe=recipe_from(values), seed=seed, images=() if image is None else (image,))


def _pixels(model: LoadedModel, items: Sequence[Item], pad_to: int | None = 4) -> list[np.ndarray[Any, Any]]:
    return [output.frames_FHWC[0] for output in make_batch(model, items, pad_to).outputs]


def test_the_result_has_the_asked_size_and_count(model: LoadedModel) -> None:
    result: BatchResult = make_batch(model, [_item(height=48, width=80), _item(height=48, width=80, seed=2)], None)

    assert [output.frames_FHWC.shape for output in result.outputs] == [(1, 48, 80, 3)] * 2
    assert {output.frames_FHWC.dtype for output in result.outputs} == {np.dtype(np.uint8)}
    assert all(output.is_finite and not output.is_blocked for output in result.outputs)
    assert 0 < result.decode_s < result.generate_s


@pytest.mark.parametrize(
    "other",
    [
        _item(prompt="a forest"),
        _item(seed=2),
        _item(negative_prompt="clouds"),
        _item(guidance_scale=2.0),
        _item(num_inference_steps=3),
        _item(scheduler="EulerAncestralDiscreteScheduler"),
    ],
    ids=["prompt", "seed", "negative_prompt", "guidance_scale", "steps", "scheduler"],
)
def test_pixels_change_with_what_the_recipe_says(model: LoadedModel, other: Item) -> None:
    assert not np.array_equal(_pixels(model, [_item()])[0], _pixels(model, [other])[0])


def test_image_to_image_pixels_change_with_the_source_and_the_strength(model: LoadedModel) -> None:
    plain = _pixels(model, [_item(image=SOURCE, num_inference_steps=4)])[0]
    other = SOURCE[::-1].copy()

    assert not np.array_equal(plain, _pixels(model, [_item(image=other, num_inference_steps=4)])[0])
    assert not np.array_equal(plain, _pixels(model, [_item(image=SOURCE, num_inference_steps=4, strength=0.5)])[0])


@pytest.mark.parametrize("image", [None, SOURCE], ids=["text-to-image", "image-to-image"])
def test_at_a_fixed_batch_size_a_row_is_bitwise_independent_of_its_neighbours(model: LoadedModel, image: Any) -> None:
    other = None if image is None else SOURCE.transpose(1, 0, 2).copy()
    alone = _pixels(model, [_item(image=image)])[0]
    crowd = [_item(f"crowd {n}", seed=50 + n, image=other) for n in range(3)]

    assert np.array_equal(alone, _pixels(model, [_item(image=image), *crowd])[0])
    assert np.array_equal(alone, _pixels(model, [*crowd, _item(image=image)])[3])


@pytest.mark.parametrize(
    "scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_at_another_batch_size_pixels_differ_by_one_at_most(model: LoadedModel, scheduler: str) -> None:
    items = [_item(f"scene {n}", seed=n, scheduler=scheduler) for n in range(3)]
    together = _pixels(model, items, None)
    alone = [_pixels(model, [item], None)[0] for item in items]

    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_call_leaves_nothing_behind_that_changes_the_next(model: LoadedModel) -> None:
    before = _pixels(model, [_item()])[0]
    _pixels(model, [_item(image=SOURCE, scheduler="EulerAncestralDiscreteScheduler", num_inference_steps=4)])

    assert np.array_equal(before, _pixels(model, [_item()])[0])


def test_one_folder_serves_both_tasks_with_the_same_modules(model: LoadedModel) -> None:
    base = model.pipeline(model.family.tasks["text-to-image"][0], "")
    other = model.pipeline(model.family.tasks["image-to-image"][0], "")

    assert other.unet is base.unet
    assert other.vae is base.vae
    assert other.scheduler is not base.scheduler


def test_a_long_prompt_is_seen_to_be_cut(model: LoadedModel) -> None:
    assert model.tokens.count(_item("short").recipe) == (7, False)
    assert model.tokens.count(_item("long " * 100).recipe)[1]


def test_a_model_that_changed_since_the_plan_is_refused() -> None:
    with pytest.raises(ModelLoadFailed, match="not what was planned"):
        load_model("tiny", Model(path="builtin:tiny-random"), "0" * 40, {})

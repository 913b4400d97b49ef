"""The recipe: typed, read back from its canonical JSON, of this key version and of older ones."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from sdbatch.canonical import canonical
from sdbatch.errors import UserError
from sdbatch.recipe import KEY_VERSION, Recipe, parse_recipe, parse_recipes, recipe_from, request_key, request_keys

PICTURE: dict[str, Any] = {"task": "text-to-image", "height": 64, "width": 96, "num_inference_steps": 3}


def test_a_recipe_reads_back_typed() -> None:
    values = {**PICTURE, "seed": 2**62 + 3, "loras": [["aa", 0.5]], "images": ["sha256:00"], "keyframes": [0, 8]}
    recipe = parse_recipe(canonical({**values, "task": "image-to-video", "num_frames": 9}))

    assert recipe.seed == 2**62 + 3
    assert (recipe.loras, recipe.images, recipe.keyframes) == ((("aa", 0.5),), ("sha256:00",), (0, 8))
    assert recipe.is_clip
    assert not recipe_from(PICTURE).is_clip


def test_a_recipe_that_is_read_is_the_one_that_is_made_and_shares_nothing_that_changes() -> None:
    values = {**PICTURE, "seed": 5, "prompt": "a tree", "guidance_scale": 7.5}
    read, again = recipe_from(values), recipe_from({**values, "parameters": {"eta": 1.0}})

    assert read == Recipe(**values)
    assert (read.columns(), read.metadata()) == (Recipe(**values).columns(), Recipe(**values).metadata())
    assert replace(read, seed=6) == Recipe(**{**values, "seed": 6})
    assert (read.parameters, again.parameters) == ({}, {"eta": 1.0})
    with pytest.raises(FrozenInstanceError):
        read.seed = 7  # type: ignore[misc]


@pytest.mark.parametrize("lacking", ["num_inference_steps", "task"])
def test_a_recipe_without_what_every_recipe_has_is_refused_by_name(lacking: str) -> None:
    with pytest.raises(UserError, match=f"a recipe lacks '{lacking}'"):
        recipe_from({name: value for name, value in PICTURE.items() if name != lacking})


def test_seeds_of_outputs_follow_on_within_63_bits() -> None:
    recipe = recipe_from({**PICTURE, "seed": 2**63 - 1})

    assert [recipe.output_seed(n) for n in (0, 1, 2)] == [2**63 - 1, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_version": 99}, f"key_version 99; this sdbatch reads up to {KEY_VERSION}"),
        ({"key_version": 99, "hue": 1}, f"key_version 99; this sdbatch reads up to {KEY_VERSION}"),
        ({"hue": 1}, "'hue'"),
    ],
)
def test_what_a_newer_version_wrote_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe_from({**PICTURE, **change})
    with pytest.raises(UserError, match=message):
        parse_recipes([canonical(PICTURE), canonical({**PICTURE, **change})])


def test_recipes_that_are_read_together_are_those_that_are_read_alone() -> None:
    changes: list[dict[str, Any]] = [
        {"prompt": '"},{"task":"inpainting"},[', "seed": 2**62 + 3},
        {"prompt": "", "seed": 0},
        {"prompt": "", "seed": 0, "images": ["sha256:00"], "strength": 0.0},
        {"prompt": "\n\\", "seed": 1},
        {"key_version": 1, "encoder": {"video": "mp4"}},
        {"loras": [["aa", 0.5]], "scheduler": "DDIMScheduler"},
    ]
    texts = [canonical({**PICTURE, **change}) for change in changes]

    assert parse_recipes(texts) == [parse_recipe(text) for text in texts]
    assert parse_recipes([]) == []


def test_a_value_that_is_false_stands_in_the_metadata_and_one_that_is_none_does_not() -> None:
    values = {**PICTURE, "prompt": "", "guidance_scale": 0.0, "negative_prompt": None}
    expected = {
        "task": "text-to-image",
        "num_inference_steps": 3,
        "prompt": "",
        "guidance_scale": 0.0,
        "dtype": "float32",
    }

    assert Recipe(**values).metadata() == expected
    assert recipe_from({name: value for name, value in values.items() if value is not None}).metadata() == expected


def test_how_a_master_was_stored_decides_nothing_in_an_older_recipe() -> None:
    values = {**PICTURE, "key_version": 1, "encoder": {"video": "mp4", "crf": 18}}
    older = recipe_from(values)

    assert older == recipe_from({**PICTURE, "key_version": 1})
    assert "encoder" in values, "what is read stays as it is"


def test_columns_hold_what_has_a_value() -> None:
    recipe = Recipe(task="text-to-image", prompt="", height=64, width=64, num_inference_steps=2)

    assert recipe.columns()["prompt"] == ""
    assert not recipe.columns().keys() & {"scheduler", "images", "strength", "parameters"}


@pytest.mark.parametrize("recipes", [[], ['{"a":1}'], ['{"a":1}', '{"b":"\\n"}', '{"b":"ö"}'], ['{"a":\n1}', "{}"]])
def test_keys_that_are_made_together_are_those_of_each(recipes: list[str]) -> None:
    assert request_keys(recipes).to_pylist() == [request_key(recipe) for recipe in recipes]

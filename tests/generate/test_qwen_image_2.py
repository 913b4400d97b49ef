"""Qwen-Image 2.1, real classes at toy size: traps of its pipeline in diffusers 0.42.1, seen to be avoided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.revisions import PINNED
from support.toy_newer import make_tiny_qwen_2

from sdbatch.generate.batch import make_batch
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

pytest.importorskip("torchvision", reason="transformers gives Qwen3-VL's processor out beside torchvision alone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    make_tiny_qwen_2(folder)
    return folder


def _loaded(folder: Path) -> LoadedModel:
    from sdbatch.checkpoints import describe

    model = Model(path=str(folder), revision=PINNED)
    return load_model("tiny", model, describe("tiny", model, {}).revision, {})


def _item(prompt: str, **changes: Any) -> Item:
    values = {"prompt": prompt, "height": 64, "width": 64, "num_inference_steps": 4, "guidance_scale": 1.0, **changes}
    return Item(
        recipe=recipe_from({"task": "text-to-image", "route": "QwenImage21Pipeline", **values}),
        seed=1,
        images=(),
        mask=None,
        control_image=(),
    )


def test_a_prompt_is_encoded_alike_whatever_was_encoded_before(folder: Path) -> None:
    """The pipeline takes a norm out of the encoder for its call; what is read of the encoder later would have it."""
    model = _loaded(folder)
    before, second = (make_batch(model, [_item(prompt)], None).outputs[0] for prompt in ("a beach", "a coast"))
    first = make_batch(_loaded(folder), [_item("a coast")], None).outputs[0]

    assert not np.array_equal(before.frames_FHWC, second.frames_FHWC)
    assert np.array_equal(first.frames_FHWC, second.frames_FHWC)


@pytest.mark.parametrize("steps", [2, 4])
def test_a_row_s_steps_are_made_where_the_folder_has_noise_levels_of_its_own(
    folder: Path, tmp_path: Path, steps: int
) -> None:
    """The pipeline takes the number of the folder's noise levels for the steps, without a word."""
    own = tmp_path / "own"
    own.mkdir()
    for entry in folder.iterdir():
        if entry.name != "model_index.json":
            (own / entry.name).symlink_to(entry)
    index = json.loads((folder / "model_index.json").read_text())
    (own / "model_index.json").write_text(json.dumps({**index, "sample_sigmas": [1.0, 0.3]}))
    made: list[int] = []
    by_own, plain = (
        make_batch(_loaded(place), [_item("a beach", num_inference_steps=steps)], None, lambda: made.append(1))
        .outputs[0]
        .frames_FHWC
        for place in (own, folder)
    )

    assert len(made) == 2 * steps
    assert np.array_equal(by_own, plain) == (steps != 2), "the folder's own levels are for their own number of steps"

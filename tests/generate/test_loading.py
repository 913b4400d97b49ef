"""A loaded pipeline looks for textual inversions in prompts only where its tokenizer holds any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from diffusers.utils import logging as diffusers_logging
from support.revisions import PINNED
from transformers.utils import logging as transformers_logging

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

PROMPTS = ["a <sea> town", "a town"]


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    """Return a model in memory."""
    make_tiny_random(tmp_path)
    return load_model("tiny", Model(path=str(tmp_path), revision=PINNED), PINNED, {})


@pytest.mark.parametrize("recipe", [{"task": "text-to-image"}, {"task": "image-to-image", "images": ["source"]}])
def test_prompts_are_searched_only_for_words_that_the_tokenizer_splits_in_several(
    model: LoadedModel, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = model.pipeline(
        model.family.route_of(recipe_from({"height": 64, "width": 64, "num_inference_steps": 2, **recipe})), ""
    )
    tokenizer = pipeline.tokenizer
    searched = []
    tokenize = type(tokenizer).tokenize

    def noted(self: Any, text: str) -> list[str]:
        searched.append(text)
        words: list[str] = tokenize(self, text)
        return words

    monkeypatch.setattr(type(tokenizer), "tokenize", noted)

    tokenizer.add_tokens("<sea>")  # a textual inversion of one vector
    assert pipeline.maybe_convert_prompt(PROMPTS, tokenizer) == PROMPTS
    assert searched == []

    tokenizer.add_tokens("<sea>_1")
    assert pipeline.maybe_convert_prompt(PROMPTS, tokenizer) == ["a <sea> <sea>_1 town", "a town"]
    assert searched == PROMPTS


def test_loading_leaves_the_libraries_as_the_caller_set_them(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    before = (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity(), dict(os.environ))
    diffusers_logging.set_verbosity_info()
    try:
        load_model("tiny", Model(path=str(tmp_path), revision=PINNED), PINNED, {})
        assert diffusers_logging.get_verbosity() == diffusers_logging.INFO
        assert dict(os.environ) == before[2]
        assert transformers_logging.get_verbosity() == before[1]
    finally:
        diffusers_logging.set_verbosity(before[0])


def test_a_load_answers_for_what_was_planned_or_once_recorded(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    model = Model(path=str(tmp_path))
    revision = describe("tiny", model, {}).revision

    for recorded in (revision, "v1"):  # version 0.1 recorded names that could move; they told no content
        assert load_model("tiny", model, recorded, {}).class_name == "StableDiffusionPipeline"
    with pytest.raises(ModelLoadFailed, match=f"is not what was planned: revision {revision}, not {'0' * 64}"):
        load_model("tiny", model, "0" * 64, {})

"""A loaded pipeline looks for textual inversions in prompts only where its tokenizer holds any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.revisions import PINNED

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

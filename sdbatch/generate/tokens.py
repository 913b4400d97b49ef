"""Counts the tokens of a prompt, and says whether the text encoder cuts some off."""

from __future__ import annotations

import copy
import threading
from typing import Any

from sdbatch.families import Family
from sdbatch.prompt_syntax import without_weights
from sdbatch.recipe import Recipe


class TokenCounter:
    """Counts with a copy of the tokenizer, so that it may count while a pipeline call runs in another thread.

    Two threads that use one tokenizer change each other's padding, or fail.

    Args:
        pipeline: Pipeline whose tokenizer is copied.
        family: Family of the pipeline.
    """

    def __init__(self, pipeline: Any, family: Family) -> None:
        tokenizer: Any = getattr(pipeline, family.tokenizer, None) or getattr(pipeline, "tokenizer", None)
        self._tokenizer: Any = copy.deepcopy(tokenizer)
        self._family = family
        self._counting = threading.Lock()

    def count(self, recipe: Recipe) -> tuple[int | None, bool]:
        """Return the tokens of a recipe's prompt, None without a prompt, and whether the text encoder reads fewer."""
        if recipe.prompt is None:
            return None, False
        tokens_max = self._family.route_of(recipe).tokens_max or self._family.tokens_max
        limit = recipe.parameters.get("max_sequence_length") or tokens_max
        text = without_weights(recipe.prompt) if "prompt_weights" in recipe.more else recipe.prompt
        with self._counting:
            tokens = len(self._tokenizer(text, truncation=False, add_special_tokens=True).input_ids)
        longest = self._tokenizer.model_max_length
        if recipe.more.get("long_prompt") == "chunk":
            return tokens, False
        return tokens, tokens > min(limit or longest, longest)

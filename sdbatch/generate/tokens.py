"""Counts the tokens of a prompt, and says whether the text encoder cuts some off."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from sdbatch.families import Family
from sdbatch.prompt_syntax import counted
from sdbatch.recipe import Recipe


class TokenCounter:
    """Counts with a copy of the tokenizer, so that it may count while a pipeline call runs in another thread.

    Two threads that use one tokenizer change each other's padding, or fail.

    Args:
        pipeline: Pipeline whose tokenizer is copied.
        family: Family of the pipeline.
        num_vectors: Vectors of each textual inversion of its entry, by its word.
    """

    def __init__(self, pipeline: Any, family: Family, num_vectors: Mapping[str, int]) -> None:
        self._num_vectors = num_vectors
        tokenizer: Any = getattr(pipeline, family.tokenizer, None) or getattr(pipeline, "tokenizer", None)
        # A processor holds its tokenizer beside what reads pictures.
        self._tokenizer: Any = copy.deepcopy(getattr(tokenizer, "tokenizer", tokenizer))
        self._family = family
        self._counting = threading.Lock()

    def count(self, recipe: Recipe) -> tuple[int | None, bool]:
        """Return the tokens of a recipe's prompt, None without a prompt, and whether the text encoder reads fewer."""
        if recipe.prompt is None:
            return None, False
        tokens_max = self._family.route_of(recipe).tokens_max or self._family.tokens_max
        limit = recipe.parameters.get("max_sequence_length") or tokens_max
        vectors = {word: self._num_vectors[word] for word in recipe.more.get("embeddings", {})}
        text, num_vectors = counted(recipe.prompt, vectors, has_weights="prompt_weights" in recipe.more)
        with self._counting:
            tokens = len(self._tokenizer(text, truncation=False, add_special_tokens=True).input_ids) + num_vectors
        longest = self._tokenizer.model_max_length
        if recipe.more.get("long_prompt") == "chunk":
            return tokens, False
        return tokens, tokens > min(limit or longest, longest)

"""Lets `clip_skip` find the norm that diffusers reads, while a call runs and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from sdbatch.recipe import Recipe


@contextmanager
def text_model_named(pipeline: Any, recipe: Recipe) -> Iterator[None]:
    """Name the text encoder's norm at `text_model`, where `clip_skip` reads it, while the block runs.

    In transformers 5 CLIP's layers lie in the model itself; diffusers 0.42.1 still looks one level deeper. The name has
    to go again: a loader of LoRAs that finds it takes the text encoder for one of an older transformers.
    """
    encoder = getattr(pipeline, "text_encoder", None)
    is_lacking = hasattr(encoder, "final_layer_norm") and not hasattr(encoder, "text_model")
    if recipe.parameters.get("clip_skip") is None or encoder is None or not is_lacking:
        yield
        return
    # torch's own setattr would register the norm a second time.
    object.__setattr__(encoder, "text_model", SimpleNamespace(final_layer_norm=encoder.final_layer_norm))
    try:
        yield
    finally:
        object.__delattr__(encoder, "text_model")

"""text-to-image: prompts in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdbatch.generate.batch import Item

SHARED = ("height", "width", "num_inference_steps", "guidance_scale")


def arguments(items: Sequence[Item]) -> dict[str, Any]:
    """Return the call's arguments; prompts and negatives are new lists, one entry a row."""
    recipe = items[0].recipe
    return {
        "prompt": [item.recipe["prompt"] for item in items],
        "negative_prompt": [item.recipe["negative_prompt"] for item in items],
        **{name: recipe[name] for name in SHARED},
    }

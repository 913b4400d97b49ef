"""image-to-image by strength: a prompt and a source in; style transfer, sketch to picture and day to night are this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from sdbatch.generate.batch import Item

SHARED = ("num_inference_steps", "guidance_scale", "strength")


def arguments(items: Sequence[Item]) -> dict[str, Any]:
    """Return the call's arguments; the size is the sources', which were fitted to the recipe's height and width."""
    recipe = items[0].recipe
    return {
        "prompt": [item.recipe["prompt"] for item in items],
        "negative_prompt": [item.recipe["negative_prompt"] for item in items],
        "image": [Image.fromarray(item.images[0]) for item in items],
        **{name: recipe[name] for name in SHARED},
    }

"""image-to-image: a prompt and a source in, by strength or by instruction.

It serves style transfer, sketch to picture and day to night. By strength, the source is partly noised and denoised
again; an edit model reads the whole source beside the prompt, and its route takes no strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbatch.generate.tasks.calls import pictures, scalars, texts

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def arguments(route: Route, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the arguments of the one call; sources were fitted to the recipe's height and width."""
    return [{**texts(route, items), **pictures(route, items, "images", "control_image"), **scalars(route, items)}]

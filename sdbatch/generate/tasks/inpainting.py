"""inpainting: a source is painted where its mask is white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbatch.generate.tasks.calls import pictures, scalars, texts

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def arguments(route: Route, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the arguments of the one call; source and mask were fitted to the recipe's height and width alike."""
    return [
        {**texts(route, items), **pictures(route, items, "images", "mask", "control_image"), **scalars(route, items)}
    ]

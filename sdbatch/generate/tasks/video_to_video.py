"""video-to-video: a clip becomes another clip, by strength or with the source as a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbatch.generate.tasks.calls import pictures, scalars, texts

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def arguments(route: Route, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the arguments of the one call; sources have the recipe's size and number of frames."""
    return [{**texts(route, items), **pictures(route, items, "video"), **scalars(route, items)}]

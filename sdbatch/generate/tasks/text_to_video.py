"""text-to-video: prompts in, clips out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbatch.generate.tasks.calls import scalars, texts

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def arguments(route: Route, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the arguments of the one call."""
    return [{**texts(route, items), **scalars(route, items)}]

"""image-to-video: one image that a clip begins with, or a set of key frames.

images + keyframes --> one call with native conditions
--> or a call per pair of neighbours: [0 .. 8] [8 .. 16], each from its first image to its last
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbatch.generate.tasks.calls import pictures, scalars, texts

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def arguments(route: Route, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the arguments of one call, or of a call for each pair of neighbouring key frames."""
    call = {**pictures(route, items, "images"), **scalars(route, items)}
    keyframes = items[0].recipe.keyframes
    if route.arguments.get("keyframes"):
        call[route.arguments["keyframes"]] = list(keyframes)
    if route.keyframes != "chained":
        return [{**texts(route, items), **call}]
    images = call.pop(route.arguments["images"])
    first = route.arguments["images"]
    if len(images) == 1:
        return [{**texts(route, items), **call, first: images[0]}]
    pairs = zip(itertools.pairwise(keyframes), itertools.pairwise(images), strict=True)
    return [
        {**texts(route, items), **call, first: one, "last_image": two, "num_frames": end - start + 1}
        for (start, end), (one, two) in pairs
    ]

"""Builds the parts of every task's arguments; a family's route states the argument's name of each column.

    Route + items --> texts(), pictures(), scalars() --> keyword arguments of one pipeline call

Lists are new for every call, because some pipelines write into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from sdbatch.columns import SOURCE_ROLES
from sdbatch.families import Route
from sdbatch.generate.guidance import PerRow

if TYPE_CHECKING:
    from sdbatch.generate.item import Item

_TEXTS = ("prompt", "negative_prompt")
_OF_ITEMS = frozenset({*_TEXTS, *SOURCE_ROLES, "keyframes"})


def texts(route: Route, items: Sequence[Item]) -> dict[str, Any]:
    """Return prompts and negative prompts: one per item, or plain texts where the pipeline takes a single row."""
    recipe = items[0].recipe
    is_one = route.rows == "single"
    says_none = route.empty_negative_differs and not recipe.negative_prompt
    return {
        route.arguments[name]: _one_or_all([_text(item, name) for item in items], is_one=is_one)
        for name in _TEXTS
        if route.reads(name, recipe.parameters) and not (name == "negative_prompt" and says_none)
    }


def pictures(route: Route, items: Sequence[Item], *roles: str) -> dict[str, Any]:
    """Return sources: one per item, or the only item's; a list where a request may have several images.

    Args:
        route: The family's route for the task.
        items: The batch.
        roles: `images`, `mask`, `video`, `control_image`; those that the route does not take are left out.

    Reference pictures are there as well where the rows have some: a list for each row.
    """
    found = {
        route.arguments[role]: _one_or_all([_picture(route, item, role) for item in items], is_one=route.rows != "list")
        for role in roles
        if route.arguments.get(role)
    }
    if items[0].ip_adapter_images:
        references = [[Image.fromarray(pixels) for pixels in item.ip_adapter_images] for item in items]
        found[route.arguments["ip_adapter_images"]] = references
    return found


def scalars(route: Route, items: Sequence[Item]) -> dict[str, Any]:
    """Return numbers, the route's constants and the recipe's `parameters`; all but guidance are equal for all items."""
    recipe = items[0].recipe
    values = {**recipe.columns(), "area": recipe.height * recipe.width}
    named = {
        argument: values[column]
        for column, argument in route.arguments.items()
        if argument and column not in _OF_ITEMS and column in values
    }
    if route.per_row_guidance:
        guidances = [item.recipe.guidance_scale or 0.0 for item in items]
        if len(set(guidances)) > 1:
            named[route.arguments["guidance_scale"]] = PerRow(guidances)
    return {
        **route.constants,
        **named,
        **{name: _typed(route, name, of_row) for name, of_row in recipe.parameters.items()},
    }


def _typed(route: Route, name: str, value: Any) -> Any:
    """Return a further argument in its type: the recipe has 1.0 as 1, which ControlNets' pipelines refuse (0.42.1)."""
    if route.parameters.get(name) is not float:
        return value
    return [float(number) for number in value] if isinstance(value, list) else float(value)


def _text(item: Item, name: str) -> str:
    """Return a text of an item; the recipe leaves an empty one out."""
    text: str | None = getattr(item.recipe, name)
    return text or ""


def _picture(route: Route, item: Item, role: str) -> Image.Image | list[Image.Image]:
    if role == "video":
        return [Image.fromarray(frame) for frame in getattr(item, role)]
    if role == "mask":
        return Image.fromarray(getattr(item, role))
    images = [Image.fromarray(pixels) for pixels in getattr(item, role)]
    # Several control pictures take a form of their own: see `with_controls`.
    return images if role == "images" and route.images[1] > 1 else images[0]


def _one_or_all(values: list[Any], *, is_one: bool) -> Any:
    return values[0] if is_one else values

"""What every task's arguments are made of: a family's row says under which name each column goes.

    TaskRow + items --> texts(), pictures(), scalars() --> keyword arguments of one pipeline call

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
    from sdbatch.generate.batch import Item

_TEXTS = ("prompt", "negative_prompt")
_OF_ITEMS = frozenset({*_TEXTS, *SOURCE_ROLES, "keyframes"})


def texts(row: Route, items: Sequence[Item]) -> dict[str, Any]:
    """Return prompts and negatives that the model reads: one an item, plain texts where a call takes one row."""
    recipe = items[0].recipe
    says_none = row.empty_negative_differs and not recipe.negative_prompt
    return {
        row.arguments[name]: _one_or_all([_text(item, name) for item in items], is_one=row.rows == "single")
        for name in _TEXTS
        if row.reads(name, recipe.parameters) and not (name == "negative_prompt" and says_none)
    }


def pictures(row: Route, items: Sequence[Item], *roles: str) -> dict[str, Any]:
    """Return sources: one an item, or the one that all items share; a list where a row may have several images.

    Args:
        row: The way of the task.
        items: Of the batch.
        roles: `images`, `mask`, `video`, `control_image`; those the way does not take are left out.
    """
    return {
        row.arguments[role]: _one_or_all([_picture(row, item, role) for item in items], is_one=row.rows != "list")
        for role in roles
        if row.arguments.get(role)
    }


def scalars(row: Route, items: Sequence[Item]) -> dict[str, Any]:
    """Return numbers, constants and what `parameters` ask for: guidance aside, what all items have in common."""
    recipe = items[0].recipe
    values = {**recipe.columns(), "area": recipe.height * recipe.width}
    named = {
        argument: values[column]
        for column, argument in row.arguments.items()
        if argument and column not in _OF_ITEMS and column in values
    }
    if row.per_row_guidance:
        guidances = [item.recipe.guidance_scale or 0.0 for item in items]
        if len(set(guidances)) > 1:
            named[row.arguments["guidance_scale"]] = PerRow(guidances)
    return {**row.constants, **named, **recipe.parameters}


def _text(item: Item, name: str) -> str:
    """Return a text of an item; the recipe leaves an empty one out."""
    text: str | None = getattr(item.recipe, name)
    return text or ""


def _picture(row: Route, item: Item, role: str) -> Image.Image | list[Image.Image]:
    if role == "video":
        return [Image.fromarray(frame) for frame in getattr(item, role)]
    if role != "images":
        return Image.fromarray(getattr(item, role))
    images = [Image.fromarray(pixels) for pixels in item.images]
    return images if row.images[1] > 1 else images[0]


def _one_or_all(values: list[Any], *, is_one: bool) -> Any:
    return values[0] if is_one else values

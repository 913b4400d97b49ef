"""What the driver must know of model families, without torch.

    model_index.json's _class_name --> find_family() --> Family: tasks, sizes, arguments, defaults, schedulers, cost

A new family is a row, in `images.py` or `clips.py`. `tests/test_families.py` compares every row with diffusers' own
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sdbatch.families.clips import CLIP_FAMILIES
from sdbatch.families.images import IMAGE_FAMILIES
from sdbatch.families.table import (
    Family,
    Given,
    Route,
    cost_tflop,
    given_of,
    is_clip,
    nearest_multiple,
    next_frame_count,
)

__all__ = [
    "FAMILIES",
    "Family",
    "Given",
    "Route",
    "cost_tflop",
    "find_family",
    "given_of",
    "is_clip",
    "nearest_multiple",
    "next_frame_count",
]

FAMILIES: Final[Mapping[str, Family]] = {family.title: family for family in (*IMAGE_FAMILIES, *CLIP_FAMILIES)}
"""Every family by its title; of one class, the more particular first."""


def find_family(class_name: str, fact: Callable[[str], Any]) -> Family | None:
    """Return the family of a model folder, None when there is no row for it.

    Args:
        class_name: `_class_name` in model_index.json.
        fact: Returns what stands in the folder at `FILE KEY`, None when nothing does.
    """
    for family in FAMILIES.values():
        if family.class_name == class_name and all(_is(fact(name), value) for name, value in family.when.items()):
            return family
    return None


def _is(found: Any, value: Any) -> bool:
    return found is not None if value is ... else bool(found == value)

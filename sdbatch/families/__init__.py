"""Model families as the driver knows them, without torch.

    model_index.json's _class_name --> find_family() --> Family: tasks, sizes, arguments, defaults, schedulers, cost

A new family is a new file in this package with a tuple `FAMILIES`; nothing else names it. `tests/test_families.py`
compares every family with diffusers' own classes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sdbatch.families.table import (
    READ_BY,
    Family,
    Given,
    Route,
    cost_tflop,
    given_of,
    nearest_multiple,
    nearest_size,
    next_frame_count,
)
from sdbatch.recipe import is_clip

__all__ = [
    "ENLARGES",
    "FAMILIES",
    "READ_BY",
    "Family",
    "Given",
    "Route",
    "cost_tflop",
    "find_family",
    "given_of",
    "nearest_multiple",
    "nearest_size",
    "next_frame_count",
    "not_served",
    "routes_unserved",
]

_SHARED_MODULES: Final = frozenset(
    {
        "arguments",
        "control_routes",
        "listing",
        "motion_routes",
        "peaks",
        "picture_routes",
        "samplers",
        "scheduler_options",
        "schedulers",
        "table",
        "wan_routes",
    }
)
"""Modules of this package that hold no family of their own; every other module holds `FAMILIES`."""


def _families() -> Iterator[Family]:
    """Yield every family: those that make pictures first, then by title."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED_MODULES]
    families = [family for name in names for family in importlib.import_module(f"{__name__}.{name}").FAMILIES]
    yield from sorted(families, key=lambda family: (all(map(is_clip, family.tasks)), family.title.lower()))


FAMILIES: Final[Mapping[str, Family]] = {family.title: family for family in _families()}
"""Every family by its title."""


def find_family(class_name: str, fact: Callable[[str], Any]) -> Family | None:
    """Return the family of a model folder, None when no family has that class; of one class, the most particular one.

    Args:
        class_name: `_class_name` in model_index.json.
        fact: Returns what stands in the folder at `FILE KEY`, None when nothing does.
    """
    matching = [
        family
        for family in FAMILIES.values()
        if family.class_name == class_name
        and all(_holds(fact(name), value) for name, value in family.when.items())
        and not any(_holds(fact(name), value) for name, value in family.unless.items())
    ]
    return max(matching, key=lambda family: len(family.when), default=None)


def not_served(class_name: str, fact: Callable[[str], Any]) -> str:
    """Return what makes a folder one that no family of its class serves, as text; "" where nothing does."""
    of_class = [family for family in FAMILIES.values() if family.class_name == class_name]
    refused = [name for family in of_class for name, value in family.unless.items() if _holds(fact(name), value)] or [
        name for family in of_class for name, value in family.when.items() if not _holds(fact(name), value)
    ]
    reasons = {f"{name} {value!r}" if (value := fact(name)) is not None else f"no {name}" for name in refused}
    return " and ".join(sorted(reasons))


def routes_unserved(family: Family, fact: Callable[[str], Any]) -> dict[str, str]:
    """Return what of a folder a route cannot serve, as text, by the route's name; others serve it.

    Args:
        family: Family of the folder.
        fact: Returns what stands at `FILE KEY` in the folder, None when nothing does.
    """
    return {
        route.name: f"{place} {fact(place)!r}"
        for route in family.routes
        for place, value in route.unless.items()
        if _holds(fact(place), value)
    }


ENLARGES: Final[Mapping[str, int]] = {
    route.name: route.enlarges for family in FAMILIES.values() for route in family.routes if route.enlarges > 1
}
"""How many times as large as its source an output of a route is, by the route's name; others say their size."""


def _holds(actual: Any, expected: Any) -> bool:
    return actual is not None if expected is ... else bool(actual == expected)

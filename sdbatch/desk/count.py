"""How many combinations a block has, without making them.

    dimensions, conditions --> classes of values that every condition sees alike --> count_of()

A thousand products of four seasons are four classes to a condition that reads the season. Dimensions that no condition
joins are counted apart, and their numbers multiplied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

from sdbatch.desk.blocks import CLASSES_MAX, Condition, Dimension
from sdbatch.desk.form import BriefRefused


def count_of(dimensions: Sequence[Dimension], conditions: Sequence[Condition], label: str) -> int:
    """Return the number of combinations of dimensions for which every condition holds.

    Raises:
        BriefRefused: When over `CLASSES_MAX` combinations of classes would have to be looked at.
    """
    if not all(condition.says(()) for condition in conditions if not condition.features):
        return 0
    conditions = [condition for condition in conditions if condition.features]
    counts = []
    for group in _joined(dimensions, conditions):
        axes = {axis for dimension in group for axis in dimension.axes}
        counts.append(_count_group(group, [one for one in conditions if one.axes <= axes], label))
    return prod(counts)


def _joined(dimensions: Sequence[Dimension], conditions: Sequence[Condition]) -> list[list[Dimension]]:
    """Return the dimensions in groups that no condition joins."""
    groups: list[tuple[set[int], list[Dimension]]] = [(set(one.axes), [one]) for one in dimensions]
    for condition in conditions:
        touched = [group for group in groups if group[0] & condition.axes]
        rest = [group for group in groups if not group[0] & condition.axes]
        axes = {axis for group in touched for axis in group[0]}
        groups = [*rest, (axes, [one for group in touched for one in group[1]])]
    return [group for _, group in groups]


def _count_group(group: Sequence[Dimension], conditions: Sequence[Condition], label: str) -> int:
    """Count the combinations of dimensions that conditions join, class by class."""
    if not conditions:
        return prod(len(dimension.rows) for dimension in group)
    # Those with the fewest classes come first, so that a condition that fails cuts off much.
    classes = sorted(
        ((dimension, list(_classes(dimension, conditions).items())) for dimension in group),
        key=lambda pair: len(pair[1]),
    )
    order = [dimension for dimension, _ in classes]
    depth_of = {axis: depth for depth, dimension in enumerate(order) for axis in dimension.axes}
    asked: list[list[Condition]] = [[] for _ in order]
    for condition in conditions:
        asked[max(depth_of[axis] for axis in condition.axes)].append(condition)
    places = {
        (id(condition), at): (depth_of[feature.axis], _place(order[depth_of[feature.axis]], conditions, condition, at))
        for condition in conditions
        for at, feature in enumerate(condition.features)
    }
    chosen: list[tuple[Any, ...]] = [()] * len(order)
    looked_at = 0

    def deeper(depth: int) -> int:
        nonlocal looked_at
        if depth == len(order):
            return 1
        total = 0
        for seen, number in classes[depth][1]:
            chosen[depth] = seen
            looked_at += 1
            if looked_at > CLASSES_MAX:
                message = f"its conditions join over {CLASSES_MAX} combinations of values that differ for them"
                raise BriefRefused(f"{label}: {message}; compare columns with few values instead of keys")
            if all(condition.says(_seen(condition, places, chosen)) for condition in asked[depth]):
                total += number * deeper(depth + 1)
        return total

    return deeper(0)


def _classes(dimension: Dimension, conditions: Sequence[Condition]) -> Counter[tuple[Any, ...]]:
    """Count the values of a dimension by what the conditions see of them."""
    columns = [
        (dimension.axes.index(feature.axis), feature.values)
        for condition in conditions
        for feature in condition.features
        if feature.axis in dimension.axes
    ]
    return Counter(tuple([values[row[at]] for at, values in columns]) for row in dimension.rows)


def _place(dimension: Dimension, conditions: Sequence[Condition], wanted: Condition, wanted_at: int) -> int:
    """Return at which place of a dimension's class a feature of a condition stands."""
    place = 0
    for condition in conditions:
        for at, feature in enumerate(condition.features):
            if feature.axis in dimension.axes:
                if condition is wanted and at == wanted_at:
                    return place
                place += 1
    raise AssertionError("a feature of an axis that the dimension lacks")


def _seen(
    condition: Condition, places: dict[tuple[int, int], tuple[int, int]], chosen: Sequence[tuple[Any, ...]]
) -> tuple[Any, ...]:
    seen = []
    for at in range(len(condition.features)):
        depth, place = places[id(condition), at]
        seen.append(chosen[depth][place])
    return tuple(seen)

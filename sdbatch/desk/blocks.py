"""A block of rows: the product of its dimensions, less the combinations for which a condition does not hold.

    form of a block, axes --> block_of() --> Block --> combinations(), membership()

A combination is a tuple with the number of a value for every axis of the brief, None for an axis that the block lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sdbatch.desk.axes import Axis
from sdbatch.desk.form import BlockForm, BriefRefused
from sdbatch.where import Kind, compile_conjuncts

Combination = tuple[int | None, ...]
CLASSES_MAX: Final = 2_000_000
"""Combinations of classes for which conditions are looked at; each takes half a microsecond."""
KNOWN_MAX: Final = 100_000
"""Answers of a condition that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What a condition looks at of one axis.

    Attributes:
        axis: Number of the axis.
        values: What it sees of each value.
    """

    axis: int
    values: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Says of a combination whether it is meant.

    Attributes:
        features: What it looks at.
        test: Takes what each feature sees.
        known: What the test said, by what it was given; filled as it is asked.
    """

    features: tuple[Feature, ...]
    test: Callable[[tuple[Any, ...]], bool]
    known: dict[tuple[Any, ...], bool] = field(default_factory=dict)

    @property
    def axes(self) -> frozenset[int]:
        """Axes that it looks at."""
        return frozenset(feature.axis for feature in self.features)

    def holds(self, combination: Sequence[int | None]) -> bool:
        """Whether a combination is meant."""
        return self.says(tuple([one.values[combination[one.axis]] for one in self.features]))  # type: ignore[index]

    def says(self, seen: tuple[Any, ...]) -> bool:
        """Whether combinations are meant of which this is seen."""
        said = self.known.get(seen)
        if said is None:
            said = self.test(seen)
            if len(self.known) < KNOWN_MAX:
                self.known[seen] = said
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """Axes whose values go together: one axis alone, or several that were zipped.

    Attributes:
        axes: Their numbers.
        rows: Numbers of the values that go together.
        is_whole: Whether it is one axis with all its values.
    """

    axes: tuple[int, ...]
    rows: Sequence[tuple[int, ...]]
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows of a brief.

    Attributes:
        label: What messages call it.
        num_axes: Axes of the brief.
        dimensions: Its dimensions, the slowest first.
        conditions: What its combinations hold to.
        outputs: Outputs of each row; None for the job's default.
        sampled: Its combinations, where they are a sample.
    """

    label: str
    num_axes: int
    dimensions: tuple[Dimension, ...]
    conditions: tuple[Condition, ...]
    outputs: int | None = None
    sampled: tuple[Combination, ...] | None = None

    @property
    def axes(self) -> frozenset[int]:
        """Axes that its combinations have; two blocks can have a row in common only where these are equal."""
        return frozenset(axis for dimension in self.dimensions for axis in dimension.axes)

    def combinations(self) -> Iterator[Combination]:
        """Yield every combination, the last dimension fastest."""
        if self.sampled is not None:
            yield from self.sampled
        else:
            yield from combinations_of(self.dimensions, self.conditions, self.num_axes)

    def membership(self) -> Condition:
        """Return what says whether a combination is one of the whole block."""
        features: list[Feature] = []
        parts: list[tuple[int, int, Callable[[tuple[Any, ...]], bool]]] = []
        for dimension in self.dimensions:
            if not dimension.is_whole:
                start = len(features)
                features.extend(_numbers(dimension, at) for at in range(len(dimension.axes)))
                parts.append((start, len(features), frozenset(dimension.rows).__contains__))
        for condition in self.conditions:
            start = len(features)
            features.extend(condition.features)
            parts.append((start, len(features), condition.says))
        return Condition(
            features=tuple(features), test=lambda seen: all(says(seen[start:end]) for start, end, says in parts)
        )


def _numbers(dimension: Dimension, at: int) -> Feature:
    """Return a feature that sees the number of an axis's value, where the dimension has it; None elsewhere."""
    there = {row[at] for row in dimension.rows}
    return Feature(axis=dimension.axes[at], values=_Numbers(there))


class _Numbers(Sequence[int | None]):
    """The numbers of some values, and None for all others: one class, however many they are."""

    def __init__(self, there: set[int]) -> None:
        self._there = there

    def __getitem__(self, number: Any) -> Any:
        return number if number in self._there else None

    def __len__(self) -> int:
        return len(self._there)


def combinations_of(
    dimensions: Sequence[Dimension], conditions: Iterable[Condition], num_axes: int
) -> Iterator[Combination]:
    """Yield the combinations of dimensions for which every condition holds; each is asked as early as it can be."""
    stages = _stages(dimensions, conditions)
    if stages is None:
        return
    row: list[int | None] = [None] * num_axes

    def deeper(depth: int) -> Iterator[Combination]:
        dimension, asked = dimensions[depth], stages[depth]
        is_last = depth + 1 == len(dimensions)
        for values in dimension.rows:
            for axis, value in zip(dimension.axes, values, strict=True):
                row[axis] = value
            if all(condition.holds(row) for condition in asked):
                if is_last:
                    yield tuple(row)
                else:
                    yield from deeper(depth + 1)

    if dimensions:
        yield from deeper(0)


def _stages(dimensions: Sequence[Dimension], conditions: Iterable[Condition]) -> list[list[Condition]] | None:
    """Return the conditions that can be asked once each dimension is settled; None when one never holds."""
    stages: list[list[Condition]] = [[] for _ in dimensions]
    for condition in conditions:
        depths = [at for at, dimension in enumerate(dimensions) if condition.axes & set(dimension.axes)]
        if depths:
            stages[max(depths)].append(condition)
        elif not condition.says(()):
            return None
    return stages


def block_of(form: BlockForm, axes: Sequence[Axis], needed: frozenset[int], label: str) -> Block:
    """Return a block.

    Args:
        form: As the brief has it.
        axes: All axes.
        needed: Axes that columns read, for which every row needs a value.
        label: What messages call it.

    Raises:
        BriefRefused: Naming an axis that is not there, twice there, or missing.
    """
    by_name = {axis.name: number for number, axis in enumerate(axes)}
    names = [*form.axes, *form.fixed, *(name for group in form.zip for name in group)]
    sampled = form.sample.per if form.sample else []
    for name in (*names, *sampled):
        if name not in by_name:
            raise BriefRefused(f"{label}: {name} is no axis; axes are {', '.join(by_name)}")
    zipped = {name: tuple(group) for group in form.zip for name in group}
    if len(zipped) < sum(map(len, form.zip)):
        raise BriefRefused(f"{label}: an axis is zipped twice")
    if both := sorted(form.fixed.keys() & {*form.axes, *zipped}):
        raise BriefRefused(f"{label}: {both[0]} has one value by `with`; it cannot stand in `for` or `zip` too")
    if len(set(form.axes)) < len(form.axes):
        raise BriefRefused(f"{label}: an axis stands in `for` twice")
    groups = dict.fromkeys(zipped.get(name, (name,)) for name in form.axes)
    groups |= dict.fromkeys(tuple(group) for group in form.zip)
    dimensions = [_dimension(group, axes, by_name, label) for group in groups]
    for name, key in form.fixed.items():
        number = by_name[name]
        dimensions.append(_fixed(number, axes[number].number(key, f"{label}: with"), axes[number].size))
    there = {axis for dimension in dimensions for axis in dimension.axes}
    for number, axis in enumerate(axes):
        if number not in there and axis.default is not None:
            dimensions.append(_fixed(number, axis.default, axis.size))
            there.add(number)
    if lacking := sorted(needed - there):
        name = axes[lacking[0]].name
        raise BriefRefused(
            f"{label}: columns read {name}, and its rows have none; put it in `for`, or in `with` by value"
        )
    conditions = [
        one for at, text in enumerate(form.where) for one in _conditions(text, axes, there, f"{label}: where.{at}")
    ]
    return Block(
        label=label,
        num_axes=len(axes),
        dimensions=tuple(dimensions),
        conditions=tuple(conditions),
        outputs=form.outputs,
    )


def _dimension(group: Sequence[str], axes: Sequence[Axis], by_name: Mapping[str, int], label: str) -> Dimension:
    numbers = tuple(by_name[name] for name in group)
    sizes = [axes[number].size for number in numbers]
    if len(set(sizes)) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in zip(group, sizes, strict=True))
        raise BriefRefused(f"{label}: zip goes over axes of one length; {told} values")
    rows = [(value,) * len(numbers) for value in range(sizes[0])]
    return Dimension(axes=numbers, rows=rows, is_whole=len(numbers) == 1)


def _fixed(axis: int, value: int, size: int) -> Dimension:
    return Dimension(axes=(axis,), rows=[(value,)], is_whole=size == 1)


def _conditions(text: str, axes: Sequence[Axis], there: set[int], place: str) -> list[Condition]:
    kinds: dict[str, Kind] = {}
    features: dict[str, Feature] = {}
    for number in sorted(there):
        axis = axes[number]
        kinds[axis.name] = "text"
        features[axis.name] = Feature(axis=number, values=axis.keys)
        for column, values in axis.typed.items():
            kinds[f"{axis.name}.{column}"] = axis.kinds[column]
            features[f"{axis.name}.{column}"] = Feature(axis=number, values=values)
    conditions = []
    for where in compile_conjuncts(text, kinds, place):
        names, holds = where.names, where.holds
        conditions.append(Condition(features=tuple(features[name] for name in names), test=_test(names, holds)))
    return conditions


def _test(names: tuple[str, ...], holds: Callable[[Mapping[str, Any]], bool]) -> Callable[[tuple[Any, ...]], bool]:
    return lambda seen: holds(dict(zip(names, seen, strict=True)))

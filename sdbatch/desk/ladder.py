"""The shape axis: which shapes must be rendered so that every format of a brief can be made from one.

    formats --> rungs of a fixed ladder --> shape_axis() --> Axis with width, height

A format's rung depends on that format alone, so that a further format never renders another one's masters again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.desk.axes import Axis
from sdbatch.desk.form import SHAPE, BriefRefused, Form
from sdbatch.families.table import Family, nearest_multiple, nearest_size
from sdbatch.named_formats import NamedFormat, format_of

RUNGS: Final[Sequence[tuple[int, int]]] = (
    (1, 2),
    (9, 16),
    (2, 3),
    (3, 4),
    (4, 5),
    (1, 1),
    (5, 4),
    (4, 3),
    (3, 2),
    (16, 9),
    (2, 1),
)
"""Width over height of each rung. Adding one would move formats to it, so there will never be another."""
_STEPS: Final = 3
"""Multiples to either side of the ideal width that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a model renders.

    Attributes:
        family: Its family.
        width: Native width in pixels.
        height: Native height in pixels.
    """

    family: Family
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """A format and the shape that it is made from.

    Attributes:
        format: The format.
        shape: Key of its shape, such as `9x16`.
        width: Pixels of the master; 0 where the model is not known.
        height: Pixels of the master; 0 where the model is not known.
    """

    format: NamedFormat
    shape: str
    width: int
    height: int

    @property
    def crop(self) -> float:
        """Share of the master that is cut off, between 0 and 1; 0 where the format shows all of it."""
        if self.format.fit != "cover":
            return 0.0
        ours = self.width / self.height if self.width else _aspect(self.shape)
        return 1 - min(ours, self.format.aspect) / max(ours, self.format.aspect)

    @property
    def enlarged(self) -> float | None:
        """By how much the master is enlarged, below 1 where it is made smaller; None where its size is not known."""
        if not self.width:
            return None
        sides = self.format.width / self.width, self.format.height / self.height
        return max(sides) if self.format.fit == "cover" else min(sides)


def feeds(form: Form, sizes: Sizes | None, label: str) -> list[Fed]:
    """Return which shape each format of a brief is made from.

    Raises:
        BriefRefused: When a format would lose or be enlarged more than the brief allows.
    """
    fed = [_fed(format_of(entry, f"{label}: formats"), sizes) for entry in form.formats]
    for one in fed:
        size = f"{one.format.name} ({one.format.width} x {one.format.height})"
        if one.crop > form.crop_max:
            message = f"{one.crop:.0%} of the {one.shape} master would be cut off, over crop_max = {form.crop_max:g}"
            raise BriefRefused(f"{label}: formats: {size}: {message}; say fit: letterbox, or raise the bound")
        if one.enlarged is not None and one.enlarged > form.enlarge_max:
            master = f"its {one.width} x {one.height} master"
            message = f"{master} would be enlarged {one.enlarged:.2f} times, over enlarge_max = {form.enlarge_max:g}"
            raise BriefRefused(f"{label}: formats: {size}: {message}; raise the bound, or take a larger model")
    return fed


def shape_axis(fed: Sequence[Fed]) -> Axis | None:
    """Return the axis of the shapes that formats need, None where there is no format."""
    shapes = {one.shape: one for one in fed}
    keys = [key for key in map(_key, RUNGS) if key in shapes]
    if not keys:
        return None
    columns: Mapping[str, list[Any]] = {
        "width": [shapes[key].width or None for key in keys],
        "height": [shapes[key].height or None for key in keys],
        "formats": [", ".join(one.format.name for one in fed if one.shape == key) for key in keys],
    }
    return Axis(
        name=SHAPE,
        keys=keys,
        columns=columns,
        typed=columns,
        kinds={"width": "number", "height": "number", "formats": "text"},
    )


def size_of(rung: tuple[int, int], sizes: Sizes) -> tuple[int, int]:
    """Return width and height that a family renders for a rung: as many pixels as it knows, nearest in shape."""
    aspect, multiple = rung[0] / rung[1], sizes.family.size_multiple
    pixels = sizes.width * sizes.height
    ideal = math.sqrt(pixels * aspect)
    if sizes.family.sizes:
        height, width = nearest_size(ideal / aspect, ideal, sizes.family.sizes)
        return width, height
    least, most = sizes.family.size_min, sizes.family.size_max
    best: tuple[float, float, int, int] | None = None
    for step in range(-_STEPS, _STEPS + 1):
        width = nearest_multiple(max(round(ideal) + step * multiple, 1), multiple, least, most)
        height = nearest_multiple(max(round(width / aspect), 1), multiple, least, most)
        off = abs(math.log(width / height / aspect))
        candidate = (round(off, 6) + abs(math.log(width * height / pixels)) / 4, off, width, height)
        best = candidate if best is None or candidate < best else best
    assert best is not None
    return best[2], best[3]


def _fed(one: NamedFormat, sizes: Sizes | None) -> Fed:
    rung = min(RUNGS, key=lambda rung: abs(math.log(one.aspect * rung[1] / rung[0])))
    width, height = size_of(rung, sizes) if sizes is not None else (0, 0)
    return Fed(format=one, shape=_key(rung), width=width, height=height)


def _key(rung: tuple[int, int]) -> str:
    return f"{rung[0]}x{rung[1]}"


def _aspect(key: str) -> float:
    width, _, height = key.partition("x")
    return int(width) / int(height)

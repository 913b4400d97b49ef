"""The axes of a grid, as the command line names them.

"guidance_scale=1,3,5" --> parse_axis() --> GridAxis: a column of the manifest and the values it takes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from sdbatch.canonical import canonical
from sdbatch.columns import column_meant
from sdbatch.errors import JobError
from sdbatch.manifest.cells import Cells
from sdbatch.manifest.schema import COLUMNS
from sdbatch.manifest.values import ValueRefused, read_value

VALUES_MAX: Final = 50
"""Most values of one axis: a page with more columns shows nothing."""
_NO_AXES: Final = ("id", "num_outputs", "seed_group")
"""Columns that a grid sets itself: each of its cells is one row with one output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAxis:
    """One side of a grid.

    Attributes:
        column: A column of the manifest.
        values: What it takes, as the column holds it.
        labels: The same for people.
    """

    column: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]


def parse_axis(text: str, option: str) -> GridAxis:
    """Read an axis.

    Args:
        text: `column=value,value`, or `column=[...]` with a list in YAML, for values that hold commas.
        option: Where it stands, for messages.

    Raises:
        JobError: When it is none, or a value does not fit its column.
    """
    column, separator, listed = text.partition("=")
    place = f"{option} {text[:80]}"
    if not separator or not listed:
        raise JobError(f"{place}: an axis is COLUMN=VALUE,VALUE, as in guidance_scale=1,3,5")
    known = [name for name in COLUMNS if name not in _NO_AXES]
    if column not in known:
        near = column_meant(column, known)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
        raise JobError(f"{place}: {column[:60]!r} is no column that a grid can vary; {hint}")
    entries = _listed(listed, place) if listed.startswith("[") else listed.split(",")
    if len(entries) > VALUES_MAX:
        raise JobError(f"{place}: {len(entries)} values are over {VALUES_MAX}")
    values = tuple(_value(column, entry, place) for entry in entries)
    if len({canonical(value) for value in values}) < len(values):
        raise JobError(f"{place}: a value stands twice")
    return GridAxis(column=column, values=values, labels=tuple(map(_label, values)))


def _listed(text: str, place: str) -> Sequence[Any]:
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"{place}: is no list in YAML: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(entries, list) or not entries:
        raise JobError(f"{place}: a list of values is needed, as in ['one, two', three]")
    return entries


def _value(column: str, entry: Any, place: str) -> Any:
    if isinstance(entry, dict):
        entry = canonical(entry)
    if isinstance(entry, str) and column not in {"prompt", "negative_prompt"}:
        entry = entry.strip()
    try:
        return read_value(column, Cells().value(column, entry, None))
    except ValueRefused as error:
        raise JobError(f"{place}: {column} {str(entry)[:60]!r} {error}") from error


def _label(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else canonical(value)

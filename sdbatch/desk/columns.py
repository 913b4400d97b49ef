"""The columns of a brief: what each row of the manifest gets.

    form of a column --> ColumnMaker --> value of a row

A value is a template, a plain value, a list of templates, or a choice by the value of an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.columns import MANIFEST, column_meant
from sdbatch.desk.axes import Axis
from sdbatch.desk.form import MADE, BriefRefused
from sdbatch.desk.templates import Template, Templates
from sdbatch.hints import did_you_mean
from sdbatch.types import RefusedValue

BY, ELSE = "by", "else"
_OWN: Final = "x_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMaker:
    """Makes the values of one column.

    Attributes:
        name: The column.
        axes: Numbers of the axes that it reads.
        value: Gives the value of a row; takes the number of each axis's value.
    """

    name: str
    axes: frozenset[int]
    value: Callable[[Sequence[int | None]], Any]


def column_makers(columns: Mapping[str, Any], axes: Sequence[Axis], label: str) -> list[ColumnMaker]:
    """Return what makes each column.

    Raises:
        BriefRefused: Naming a column that manifests do not have, or what in a template is not taken.
    """
    templates = Templates(axes)
    taken = {f"{_OWN}{axis.name}" for axis in axes}
    makers = []
    for name, form in columns.items():
        place = f"{label}: columns.{name}"
        if name in MADE:
            raise BriefRefused(f"{place}: is made by the brief itself; leave it out")
        if name in taken:
            raise BriefRefused(f"{place}: every axis stands in its own column already; leave it out")
        if name not in MANIFEST and not name.startswith(_OWN):
            near = column_meant(name)
            hint = f"did you mean {near}?" if near else "your own start with x_"
            raise BriefRefused(f"{place}: is not a column of a manifest; {hint}")
        makers.append(_maker(name, form, templates, axes, place))
    return makers


def _maker(name: str, form: Any, templates: Templates, axes: Sequence[Axis], place: str) -> ColumnMaker:
    if isinstance(form, str):
        template = templates.template(form, place)
        return ColumnMaker(name=name, axes=frozenset(template.axes), value=template.render)
    if isinstance(form, dict) and BY in form:
        return _by(name, form, templates, axes, place)
    if isinstance(form, list) and all(isinstance(item, str) for item in form):
        return _list(name, [templates.template(item, f"{place}.{at}") for at, item in enumerate(form)])
    if isinstance(form, dict) and name != "parameters":
        raise BriefRefused(
            f"{place}: a mapping needs {BY}, the axis that it chooses by, as in {{by: locale, else: ...}}"
        )
    return ColumnMaker(name=name, axes=frozenset(), value=lambda _: form)


def _list(name: str, templates: Sequence[Template]) -> ColumnMaker:
    def value(row: Sequence[int | None]) -> Any:
        items = [template.render(row) for template in templates]
        refused = next((item for item in items if isinstance(item, RefusedValue)), None)
        return refused or items

    return ColumnMaker(name=name, axes=frozenset(axis for one in templates for axis in one.axes), value=value)


def _by(name: str, form: Mapping[Any, Any], templates: Templates, axes: Sequence[Axis], place: str) -> ColumnMaker:
    """Return what chooses a template by the value of an axis, or of one of its columns."""
    number, values = _chooser(form[BY], axes, place)
    if wrong := [key for key in form if isinstance(key, bool)]:
        raise BriefRefused(f"{place}: YAML reads a key as {wrong[0]}; put it in quotes, as in 'no'")
    choices = {str(key): _maker(name, one, templates, axes, f"{place}.{key}") for key, one in form.items() if key != BY}
    rest = choices.pop(ELSE, None)
    there = {str(value) for value in values if value is not None}
    if unknown := [key for key in choices if key not in there]:
        hint = did_you_mean(unknown[0], there)
        raise BriefRefused(f"{place}: {form[BY]} never is {unknown[0]!r}{hint and f'; {hint}'}")
    if rest is None and (missing := sorted(there - choices.keys())):
        raise BriefRefused(f"{place}: has nothing for {form[BY]} {', '.join(missing)[:200]}, and no else")
    makers = [choices.get(str(value), rest) for value in values]
    reads = {number} | {axis for one in (*choices.values(), *([rest] if rest else [])) for axis in one.axes}

    def value(row: Sequence[int | None]) -> Any:
        maker = makers[row[number]]  # type: ignore[index]  # the axes of a column have values
        return RefusedValue(f"cannot be made: {form[BY]} is empty") if maker is None else maker.value(row)

    return ColumnMaker(name=name, axes=frozenset(reads), value=value)


def _chooser(by: Any, axes: Sequence[Axis], place: str) -> tuple[int, Sequence[Any]]:
    axis_name, _, column = str(by).partition(".")
    number = next((number for number, axis in enumerate(axes) if axis.name == axis_name), None)
    if number is None:
        raise BriefRefused(f"{place}: {BY} {by!r}: axes are {', '.join(axis.name for axis in axes)}")
    axis = axes[number]
    if column and column not in axis.columns:
        raise BriefRefused(f"{place}: {BY} {by!r}: {axis_name} has {', '.join(axis.columns)}")
    return number, axis.columns[column] if column else axis.keys

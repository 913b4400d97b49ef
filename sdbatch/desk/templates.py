"""Templates: the text of a column, made from the values of a row's axes.

    "{{ product.name }} {{ scene.text }}" --> Template --> render(numbers of the values) --> text

jinja2's immutable sandbox renders them, and of its language only what is named here is taken: no calls, no loops, no
arithmetic, so that a brief from a stranger can neither reach into Python nor take time or memory without end. What
tables hold is put in as it is and never rendered again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sdbatch.desk.axes import Axis
from sdbatch.desk.form import BriefRefused
from sdbatch.hints import did_you_mean
from sdbatch.types import RefusedValue

CHARS_MAX: Final = 16_000
RENDERED_CHARS_MAX: Final = 64 << 10
"""A column takes no longer text."""
MEMO_MAX: Final = 100_000
FILTERS: Final = (
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "default",
    "d",
    "truncate",
    "int",
    "float",
)
TESTS: Final = ("none", "defined", "undefined")
_TAKEN: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Filter,
    nodes.Test,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
)
_ALLOWED: Final = (
    f"taken are axes and their columns, texts, ~, if, comparisons, and, or, not, and the filters {', '.join(FILTERS)}"
)

Reference = tuple[int, str | None]
"""Number of an axis, and the column; None for its key."""


class _Empty(Exception):
    """A null would be written as a word."""


def _written(value: Any) -> Any:
    """Return what stands in a text for a value; a null stands for nothing that could be meant."""
    if value is None:
        raise _Empty
    return str(value).lower() if isinstance(value, bool) else value


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, without operators that make much of little."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operator."""
        raise SecurityError(f"the operator {operator} is not taken")


def _replaced(text: Any, old: str, new: str) -> str:
    """Replace, but not a little by much over and over."""
    whole, old, new = str(text), str(old), str(new)
    if len(whole) + whole.count(old) * len(new) > RENDERED_CHARS_MAX:
        raise ValueError(f"would have over {RENDERED_CHARS_MAX} characters")
    return whole.replace(old, new)


class _AxisValue:
    """One value of an axis as jinja sees it: its key as text, its columns as attributes."""

    __slots__ = ("_axis", "_number")

    def __init__(self, axis: Axis, number: int) -> None:
        self._axis = axis
        self._number = number

    def __getattr__(self, name: str) -> Any:
        if name not in self._axis.columns:
            raise AttributeError(name)
        return self._axis.columns[name][self._number]

    def __getitem__(self, name: str) -> Any:
        return self._axis.columns[name][self._number]

    def __str__(self) -> str:
        key: str = self._axis.keys[self._number]
        return key

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with places in it.

    Attributes:
        axes: Numbers of the axes that it reads, ascending.
        render: Gives the text, a value as it is, or what refuses the row; takes the number of each axis's value.
    """

    axes: tuple[int, ...]
    render: Callable[[Sequence[int | None]], Any]


class Templates:
    """Understands templates over some axes.

    Args:
        axes: The axes, in order.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axes = axes
        self._by_name = {axis.name: number for number, axis in enumerate(axes)}
        self._sandbox = _Sandbox(undefined=jinja2.StrictUndefined, finalize=_written, autoescape=False)
        self._sandbox.globals.clear()
        self._sandbox.filters = {name: self._sandbox.filters[name] for name in FILTERS}
        self._sandbox.filters["replace"] = _replaced

    def template(self, text: str, place: str) -> Template:
        """Return a template.

        Args:
            text: The template.
            place: What messages call it, such as `columns.prompt`.

        Raises:
            BriefRefused: Naming what in it is not taken, and what is.
        """
        if len(text) > CHARS_MAX:
            raise BriefRefused(f"{place}: a template of {len(text)} characters, over {CHARS_MAX}")
        try:
            tree = self._sandbox.parse(text)
            self._check(tree, place)
            numbers = tuple(sorted({self._by_name[name.name] for name in tree.find_all(nodes.Name)}))
            plain = self._plain(tree)
            render = self._by_parts(plain) if plain is not None else self._by_jinja(text, numbers)
        except jinja2.TemplateSyntaxError as error:
            raise BriefRefused(f"{place}: line {error.lineno}: {error.message}; {_ALLOWED}") from error
        except RecursionError as error:
            raise BriefRefused(f"{place}: is nested too deeply") from error
        return Template(axes=numbers, render=self._remembered(render, numbers))

    def _check(self, tree: nodes.Template, place: str) -> None:
        """Refuse every part that is not taken, and every name that is not there."""
        waiting: list[nodes.Node] = [tree]
        while waiting:
            node = waiting.pop()
            if not isinstance(node, _TAKEN):
                raise BriefRefused(f"{place}: line {node.lineno}: {_called(node)} is not taken; {_ALLOWED}")
            if isinstance(node, nodes.Filter) and node.name not in FILTERS:
                raise BriefRefused(f"{place}: the filter {node.name} is not taken; {_ALLOWED}")
            if isinstance(node, nodes.Test) and node.name not in TESTS:
                raise BriefRefused(f"{place}: the test {node.name} is not taken; {_ALLOWED}")
            if isinstance(node, nodes.Getattr | nodes.Getitem):
                self._reference(node, place)
            elif isinstance(node, nodes.Name):
                self._axis(node.name, place)
            else:
                waiting.extend(node.iter_child_nodes())

    def _axis(self, name: str, place: str) -> int:
        if name not in self._by_name:
            hint = did_you_mean(name, self._by_name) or f"axes are {', '.join(self._by_name)}"
            raise BriefRefused(f"{place}: {name} is no axis; {hint}")
        return self._by_name[name]

    def _reference(self, node: nodes.Getattr | nodes.Getitem, place: str) -> Reference:
        """Return the column that a part names. Raises BriefRefused when it is none."""
        name = node.attr if isinstance(node, nodes.Getattr) else None
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            name = node.arg.value
        if name is None or not isinstance(node.node, nodes.Name):
            raise BriefRefused(f"{place}: a part of {_called(node.node)} is not taken; {_ALLOWED}")
        number = self._axis(node.node.name, place)
        columns = self._axes[number].columns
        if name not in columns:
            hint = did_you_mean(name, columns) or f"it has {', '.join(columns)}"
            raise BriefRefused(f"{place}: {node.node.name} has no column {name!r}; {hint:.300}")
        return number, name

    def _plain(self, tree: nodes.Template) -> list[str | Reference] | None:
        """Return the parts of a template of text and references alone, which needs no jinja; None for another."""
        parts: list[str | Reference] = []
        for output in tree.body:
            if not isinstance(output, nodes.Output):
                return None
            for node in output.nodes:
                if isinstance(node, nodes.TemplateData):
                    parts.append(node.data)
                elif isinstance(node, nodes.Name):
                    parts.append((self._by_name[node.name], None))
                elif isinstance(node, nodes.Getattr | nodes.Getitem):
                    parts.append(self._reference(node, ""))
                else:
                    return None
        return parts

    def _by_parts(self, parts: list[str | Reference]) -> Callable[[Sequence[int | None]], Any]:
        values = [part if isinstance(part, str) else self._values(*part) for part in parts]
        if len(parts) == 1 and not isinstance(parts[0], str):
            number, (column, _) = parts[0][0], self._values(*parts[0])
            return lambda row: column[row[number]]  # type: ignore[index]  # the axes of a template have values

        def render(row: Sequence[int | None]) -> Any:
            texts = []
            for part, found in zip(parts, values, strict=True):
                if isinstance(found, str):
                    texts.append(found)
                    continue
                column, name = found
                value = column[row[part[0]]]  # type: ignore[index]
                if value is None:
                    return RefusedValue(f"cannot be made: {name} is empty; {{{{ {name} or '' }}}} leaves it out")
                texts.append(str(_written(value)))
            return "".join(texts)

        return render

    def _values(self, number: int, column: str | None) -> tuple[Sequence[Any], str]:
        axis = self._axes[number]
        return (axis.keys, axis.name) if column is None else (axis.columns[column], f"{axis.name}.{column}")

    def _by_jinja(self, text: str, numbers: Sequence[int]) -> Callable[[Sequence[int | None]], Any]:
        compiled = self._sandbox.from_string(text)
        names = [self._axes[number].name for number in numbers]

        def render(row: Sequence[int | None]) -> Any:
            context = {
                name: _AxisValue(self._axes[number], row[number])  # type: ignore[arg-type]
                for name, number in zip(names, numbers, strict=True)
            }
            try:
                return compiled.render(context)
            except _Empty:
                named = ", ".join(f"{name} {value}" for name, value in context.items())
                return RefusedValue(f"cannot be made: a value that it takes of {named} is empty; `or ''` leaves it out")
            except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
                return RefusedValue(f"cannot be made: {' '.join(str(error).split()):.200}")

        return render

    def _remembered(
        self, render: Callable[[Sequence[int | None]], Any], numbers: Sequence[int]
    ) -> Callable[[Sequence[int | None]], Any]:
        """Return the same, each text made once while many rows take it."""
        size = 1
        for number in numbers:
            size *= self._axes[number].size
        if not numbers:
            text = render([None] * len(self._axes))
            return lambda _: text
        if size > MEMO_MAX:
            return render
        known: dict[tuple[int | None, ...], Any] = {}

        def remembered(row: Sequence[int | None]) -> Any:
            key = tuple([row[number] for number in numbers])
            if key not in known:
                known[key] = render(row)
            return known[key]

        return remembered


_WORDS: Final[Mapping[str, str]] = {
    "Call": "a call",
    "For": "a loop",
    "Mul": "arithmetic",
    "Pow": "arithmetic",
    "Add": "arithmetic (~ joins texts)",
    "Sub": "arithmetic",
    "Div": "arithmetic",
    "FloorDiv": "arithmetic",
    "Mod": "arithmetic",
    "Assign": "set",
    "AssignBlock": "set",
    "Macro": "a macro",
    "Include": "include",
    "Import": "import",
    "FromImport": "import",
    "Extends": "extends",
    "Block": "a block",
}


def _called(node: nodes.Node) -> str:
    kind = type(node).__name__
    return _WORDS.get(kind, f"{kind.lower()}")

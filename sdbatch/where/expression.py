"""An expression is parsed by Python's own parser, and every node of it that is not named here is refused.

text, kinds of the columns --> compile_where() --> Where, or WhereRefused
"""

from __future__ import annotations

import ast
import datetime as dt
import keyword
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.errors import UserError
from sdbatch.hints import did_you_mean
from sdbatch.where.kinds import CALLED, Kind

CHARS_MAX: Final = 4000
DEPTH_MAX: Final = 100
ALLOWED: Final = (
    "allowed are ==, !=, <, <=, >, >=, in, not in, and, or, not, columns, texts in quotes, numbers, true, false, null, "
    "dates as texts, and lists of these in brackets"
)
_NAMES_SHOWN: Final = 12
_ORDERED: Final = frozenset({"text", "number", "date", "timestamp"})

Row = Mapping[str, Any]
Value = Callable[[Row], Any]


class WhereRefused(UserError):
    """An expression is none, or compares what cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """An expression that was understood.

    Attributes:
        text: As it was written.
        names: Columns that it reads, sorted.
        holds: Says of a row's values, by name, whether the expression holds.
    """

    text: str
    names: tuple[str, ...]
    holds: Callable[[Row], bool]


def compile_where(text: str, kinds: Mapping[str, Kind], place: str = "where") -> Where:
    """Return what an expression means.

    Args:
        text: The expression.
        kinds: What each column holds that it may name.
        place: Where it was written, for messages.

    Raises:
        WhereRefused: Naming the expression, the place in it, and what is allowed.
    """
    (part,) = _Compiler(text, kinds, place).parts(joins=True)
    return part


def compile_conjuncts(text: str, kinds: Mapping[str, Kind], place: str = "where") -> list[Where]:
    """Return the parts of an expression that `and` joins at its top, each by itself. See `compile_where`."""
    return _Compiler(text, kinds, place).parts(joins=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of an expression: what it gives, and how; `literal` is its value where it stands there."""

    kind: Kind
    value: Value
    literal: Any = None
    is_literal: bool = False


class _Compiler:
    """Turns the nodes of one expression into functions; every node that is not named here is refused."""

    def __init__(self, text: str, kinds: Mapping[str, Kind], place: str) -> None:
        self._text = " ".join(text.split("\n")).strip()
        self._kinds = kinds
        self._place = place
        self._read: set[str] = set()

    def parts(self, *, joins: bool) -> list[Where]:
        """Return the expression, or the parts that `and` joins at its top."""
        node = self._parsed()
        nodes = node.values if not joins and isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else [node]
        parts: list[Where] = []
        for one in nodes:
            self._read = set()
            truth = self._truth(one)
            text = ast.get_source_segment(self._text, one) or self._text
            parts.append(Where(text=text, names=tuple(sorted(self._read)), holds=truth))
        return parts

    def _parsed(self) -> ast.expr:
        if len(self._text) > CHARS_MAX:
            raise WhereRefused(f"{self._place}: an expression of {len(self._text)} characters, over {CHARS_MAX}")
        try:
            tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            at = None if error.offset is None else max(error.offset, 1)
            raise self._refused(at, f"is no expression ({error.msg}){self._hint()}; {ALLOWED}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._refused(None, f"is no expression; {ALLOWED}") from error
        if _depth(tree) > DEPTH_MAX:
            raise self._refused(None, f"is nested more than {DEPTH_MAX} deep")
        return tree

    def _hint(self) -> str:
        for sign, word in (("&&", "and"), ("||", "or"), ("<>", "!=")):
            if sign in self._text:
                return f"; write {word} for {sign}"
        for name in self._kinds:
            if name in self._text and keyword.iskeyword(name.rpartition(".")[2]):
                return f"; {name} ends in a word that expressions keep for themselves; rename that column"
        is_single = "=" in self._text and not any(two in self._text for two in ("==", "!=", "<=", ">="))
        return "; write == to compare" if is_single else ""

    def _refused(self, at: int | None, message: str) -> WhereRefused:
        shown = self._text if len(self._text) <= 200 else f"{self._text[:200]}..."
        position = "" if at is None else f", at character {at}"
        return WhereRefused(f"{self._place}: {shown!r}{position}: {message}")

    def _refused_at(self, node: ast.expr, message: str) -> WhereRefused:
        column = len(self._text.encode()[: node.col_offset].decode(errors="ignore")) + 1
        return self._refused(column, message)

    def _truth(self, node: ast.expr) -> Callable[[Row], bool]:
        """Return the function of a part that is true or false."""
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(one) for one in node.values]
            return _every(parts) if isinstance(node.op, ast.And) else _some(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._truth(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        part = self._part(node)
        if part.kind not in {"boolean", "null"}:
            raise self._refused_at(node, f"is {CALLED[part.kind]} alone, where something true or false must stand")
        value = part.value
        return lambda row: value(row) is True

    def _comparison(self, node: ast.Compare) -> Callable[[Row], bool]:
        nodes = [node.left, *node.comparators]
        links = [self._link(one, sign, two) for one, sign, two in zip(nodes, node.ops, node.comparators, strict=False)]
        return links[0] if len(links) == 1 else _every(links)

    def _link(self, left_node: ast.expr, sign: ast.cmpop, right_node: ast.expr) -> Callable[[Row], bool]:
        if isinstance(sign, ast.In | ast.NotIn):
            found = self._membership(left_node, right_node)
            return found if isinstance(sign, ast.In) else lambda row: not found(row)
        if isinstance(sign, ast.Is | ast.IsNot):
            raise self._refused_at(right_node, "`is` is not taken; write == or !=, also with null")
        one, two = self._alike(left_node, self._part(left_node), right_node, self._part(right_node))
        left, right = one.value, two.value
        if isinstance(sign, ast.Eq):
            return lambda row: bool(left(row) == right(row))
        if isinstance(sign, ast.NotEq):
            return lambda row: bool(left(row) != right(row))
        for part, at in ((one, left_node), (two, right_node)):
            if part.kind not in _ORDERED | {"null"}:
                raise self._refused_at(at, f"is {CALLED[part.kind]}, which has no order")
        return _ordered(_SIGNS[type(sign)], left, right)

    def _membership(self, left_node: ast.expr, right_node: ast.expr) -> Callable[[Row], bool]:
        one = self._part(left_node)
        if isinstance(right_node, ast.List | ast.Tuple | ast.Set):
            items = [self._alike(left_node, one, node, self._item(node))[1].literal for node in right_node.elts]
            left, known = one.value, frozenset(items)
            return lambda row: left(row) in known
        two = self._part(right_node)
        if two.is_literal:
            raise self._refused_at(right_node, "is no list; a list of one value has brackets, as in ['de-DE']")
        if two.kind not in {"text", "texts", "null"} or one.kind not in {"text", "null"}:
            message = f"is {CALLED[two.kind]}, in which {CALLED[one.kind]} cannot stand"
            raise self._refused_at(right_node, message)
        left, right = one.value, two.value
        return lambda row: _stands_in(left(row), right(row))

    def _item(self, node: ast.expr) -> _Part:
        part = self._part(node)
        if not part.is_literal:
            raise self._refused_at(node, "a list holds texts and numbers, no columns; join comparisons with `or`")
        return part

    def _alike(self, left_node: ast.expr, left: _Part, right_node: ast.expr, right: _Part) -> tuple[_Part, _Part]:
        """Return both sides of a comparison, a text that stands beside a date read as one."""
        left, right = self._dated(left_node, left, right.kind), self._dated(right_node, right, left.kind)
        if left.kind != right.kind and "null" not in {left.kind, right.kind}:
            message = f"is {CALLED[right.kind]}, and {self._source(left_node)} is {CALLED[left.kind]}"
            raise self._refused_at(right_node, message)
        if "other" in {left.kind, right.kind} or {left.kind, right.kind} == {"texts"}:
            raise self._refused_at(left_node, f"is {CALLED[left.kind]}; {ALLOWED}")
        return left, right

    def _dated(self, node: ast.expr, part: _Part, wanted: Kind) -> _Part:
        if wanted not in {"date", "timestamp"} or not (part.is_literal and part.kind == "text"):
            return part
        try:
            value: Any = dt.datetime.fromisoformat(part.literal)
            value = value.date() if wanted == "date" else _in_utc(value)
        except ValueError as error:
            raise self._refused_at(node, "is no date; dates are written as in '2026-11-26'") from error
        return _literal(wanted, value)

    def _part(self, node: ast.expr) -> _Part:
        """Return a column, or a value that stands there."""
        if isinstance(node, ast.Constant):
            return self._constant(node, node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._part(node.operand)
            if inner.is_literal and inner.kind == "number":
                return _literal("number", -inner.literal if isinstance(node.op, ast.USub) else inner.literal)
            raise self._refused_at(node, f"is arithmetic; {ALLOWED}")
        if isinstance(node, ast.Name):
            word = node.id.lower()
            if word in _WORDS and node.id not in self._kinds:
                return self._constant(node, _WORDS[word])
            return self._column(node, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._column(node, f"{node.value.id}.{node.attr}")
        raise self._refused_at(node, f"is {_SHAPES.get(type(node), 'not taken')}; {ALLOWED}")

    def _constant(self, node: ast.expr, value: Any) -> _Part:
        for kinds, kind in _LITERALS:
            if isinstance(value, kinds):
                return _literal(kind, value)
        raise self._refused_at(node, f"is not taken; {ALLOWED}")

    def _column(self, node: ast.expr, name: str) -> _Part:
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(list(self._kinds)[:_NAMES_SHOWN]) + (", ..." if len(self._kinds) > _NAMES_SHOWN else "")
            hint = did_you_mean(name, self._kinds) or f"known are {known}"
            raise self._refused_at(node, f"{name} is no column here; {hint} (texts stand in quotes)")
        self._read.add(name)
        value = _reader(name, kind)
        return _Part(kind=kind, value=value)

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or "the other side"


_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None, "none": None}
_LITERALS: Final[tuple[tuple[tuple[type, ...], Kind], ...]] = (
    ((str,), "text"),
    ((bool,), "boolean"),
    ((int, float), "number"),
    ((type(None),), "null"),
)
_SIGNS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SHAPES: Final[Mapping[type[ast.expr], str]] = {
    ast.Call: "a call",
    ast.BinOp: "arithmetic",
    ast.Subscript: "a part of something",
    ast.Attribute: "a column of a column",
    ast.Lambda: "a function",
    ast.IfExp: "a choice",
    ast.JoinedStr: "a text with braces",
    ast.List: "a list, which stands after `in` alone",
    ast.Tuple: "a list, which stands after `in` alone",
    ast.Set: "a list, which stands after `in` alone",
}


def _depth(tree: ast.expr) -> int:
    """Return how many parts lie inside one another."""
    depth, level = 0, list[ast.AST]([tree])
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _literal(kind: Kind, value: Any) -> _Part:
    return _Part(kind=kind, value=lambda _: value, literal=value, is_literal=True)


def _reader(name: str, kind: Kind) -> Value:
    if kind == "number":  # NaN is null, as everywhere in tables
        return lambda row: value if (value := row[name]) == value else None
    if kind == "timestamp":
        return lambda row: None if (value := row[name]) is None else _in_utc(value)
    return lambda row: row[name]


def _in_utc(value: dt.datetime) -> dt.datetime:
    """Return a time with its zone; without one it is UTC."""
    return value if value.tzinfo else value.replace(tzinfo=dt.UTC)


def _ordered(sign: Callable[[Any, Any], Any], left: Value, right: Value) -> Callable[[Row], bool]:
    def holds(row: Row) -> bool:
        one, two = left(row), right(row)
        return one is not None and two is not None and bool(sign(one, two))

    return holds


def _stands_in(part: str | None, whole: str | Sequence[str] | None) -> bool:
    return part is not None and whole is not None and part in whole


def _every(parts: Sequence[Callable[[Row], bool]]) -> Callable[[Row], bool]:
    return lambda row: all(part(row) for part in parts)


def _some(parts: Sequence[Callable[[Row], bool]]) -> Callable[[Row], bool]:
    return lambda row: any(part(row) for part in parts)

"""Axes: the values of each dimension of a brief, with their columns.

    form of an axis, rows of its table --> axis_of() --> Axis

A key names a value in ids for ever, so it never depends on where the value stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdbatch.desk.form import KEY, KEY_CHARS_MAX, AxisForm, BriefRefused
from sdbatch.types import RefusedValue
from sdbatch.where import Kind, compile_where

VALUES_MAX: Final = 200_000
LINES_BYTES_MAX: Final = 64 << 20
TEXT: Final = "text"
"""Column of an axis of values or lines: the value as it is written."""
_NOT_OF_A_KEY: Final = re.compile(r"[^A-Za-z0-9_]+")
_NOT_OF_A_NAME: Final = re.compile(r"\W+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_COMMA_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:,[0-9]+)?")
_TRUTH: Final = {"true": True, "false": False}

TableRows = Iterable[tuple[int | None, Mapping[str, Any]]]
ReadTable = Callable[[str, str | None], TableRows]
"""Gives the rows of a table, each with its line, by path and sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One dimension.

    Attributes:
        name: Its name in the brief.
        keys: Key of each value.
        columns: Values of each column as they are written, by the column's name in templates.
        typed: The same as `where` compares them: numbers and truth values where a whole column is of them.
        kinds: What each column holds, for `where`.
        default: Number of the value that ids leave out; None for none.
    """

    name: str
    keys: list[str]
    columns: Mapping[str, list[Any]]
    typed: Mapping[str, list[Any]]
    kinds: Mapping[str, Kind]
    default: int | None = None

    @property
    def size(self) -> int:
        """Number of its values."""
        return len(self.keys)

    def number(self, key: str | int, place: str) -> int:
        """Return the number of a value by its key, or by what the key was made from.

        Raises:
            BriefRefused: When there is none.
        """
        wanted = key_of(str(key))
        if wanted not in self.keys:
            shown = ", ".join(self.keys[:10]) + (", ..." if self.size > 10 else "")
            raise BriefRefused(f"{place}: {self.name} has no value {key!r}; it has {shown}")
        return self.keys.index(wanted)


def key_of(text: str) -> str:
    """Return the key that a text becomes: `Café, 1/2` is `Cafe-1-2`."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return _NOT_OF_A_KEY.sub("-", bare).strip("-_")


def axis_of(name: str, form: AxisForm, folder: Path, read: ReadTable, place: str) -> Axis:
    """Return an axis.

    Args:
        name: Its name.
        form: Where its values come from.
        folder: Folder that its files are relative to.
        read: Reads its table.
        place: What messages call it.

    Raises:
        BriefRefused: When keys are none, too long, or not told apart.
        ManifestError: When its table cannot be read.
    """
    if form.table is not None:
        rows, origin = _of_table(form, folder, read, place), form.table
    elif form.lines is not None:
        rows, origin = _of_lines(folder / form.lines, form.lines, place), form.lines
    else:
        rows, origin = _of_values(form.values or [], place), "its values"
    names = list(dict.fromkeys(column for _, _, row in rows for column in row))
    columns = {column: [row.get(column) for _, _, row in rows] for column in names}
    kinds_typed = {column: _typed(values) for column, values in columns.items()}
    axis = Axis(
        name=name,
        keys=[key for _, key, _ in rows],
        columns=columns,
        typed={column: values for column, (_, values) in kinds_typed.items()},
        kinds={column: kind for column, (kind, _) in kinds_typed.items()},
    )
    axis = _chosen(axis, form.where, place)
    if not axis.size:
        raise BriefRefused(f"{place}: {origin} gives no value")
    if form.default is None:
        return axis
    return _with_default(axis, axis.number(form.default, f"{place}: default"))


def check_keys(places: Iterable[tuple[str, str]], label: str) -> None:
    """Refuse keys that are none, and such as differ at most in capitals: files of one name are one on many disks.

    Args:
        places: Each key with where it stands.
        label: What messages call the axis.

    Raises:
        BriefRefused: Naming both.
    """
    seen: dict[str, tuple[str, str]] = {}
    for key, place in places:
        if not KEY.fullmatch(key):
            bound = f"keys are letters, digits, - and _, at most {KEY_CHARS_MAX} of them"
            raise BriefRefused(f"{label}: {place}: {key!r:.80} is no key; {bound}; give it a shorter one")
        other = seen.setdefault(key.casefold(), (key, place))
        if other[1] != place:
            same = "the same key" if other[0] == key else f"a key that differs from {other[0]} in capitals alone"
            raise BriefRefused(f"{label}: {place} has {same}, {key}, as {other[1]}")


def _of_table(form: AxisForm, folder: Path, read: ReadTable, place: str) -> list[tuple[str, str, dict[str, Any]]]:
    table = str(form.table)
    path = table if "://" in table else str(folder / table)
    rows: list[tuple[str, str, dict[str, Any]]] = []
    names: dict[str, str] = {}
    for number, (line, row) in enumerate(read(path, form.sheet), 1):
        where = f"row {number}" if line is None else f"line {line}"
        for column in row:
            if column not in names:
                names[column] = _column_name(column, names, place)
        key_column = next((column for column in row if column.strip().casefold() == str(form.key).casefold()), None)
        if key_column is None:
            there = ", ".join(row)[:200]
            raise BriefRefused(f"{place}: {form.table} has no column {form.key!r}; it has {there}")
        key = row[key_column]
        if key is None or isinstance(key, RefusedValue | bool):
            raise BriefRefused(f"{place}: {where} of {form.table}: {form.key} is empty or no key")
        for column, value in row.items():
            if isinstance(value, RefusedValue):
                raise BriefRefused(f"{place}: {where} of {form.table}: {column} {value.message}")
        if len(rows) >= VALUES_MAX:
            raise BriefRefused(f"{place}: {form.table} has over {VALUES_MAX} rows")
        rows.append((where, key_of(str(key)), {names[column]: value for column, value in row.items()}))
    check_keys(((key, f"{where} of {form.table}") for where, key, _ in rows), place)
    return rows


def _of_lines(path: Path, name: str, place: str) -> list[tuple[str, str, dict[str, Any]]]:
    try:
        if path.stat().st_size > LINES_BYTES_MAX:
            raise BriefRefused(f"{place}: {name} has over {LINES_BYTES_MAX} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BriefRefused(f"{place}: {name} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise BriefRefused(f"{place}: {name}: {error.strerror or error}") from error
    found = [(f"line {line}", text.strip()) for line, text in enumerate(text.splitlines(), 1) if text.strip()]
    if len(found) > VALUES_MAX:
        raise BriefRefused(f"{place}: {name} has over {VALUES_MAX} lines")
    rows = [(where, key_of(line), {TEXT: line}) for where, line in found]
    check_keys(((key, f"{where} of {name}") for where, key, _ in rows), place)
    return rows


def _of_values(values: list[Any], place: str) -> list[tuple[str, str, dict[str, Any]]]:
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, value in enumerate(values, 1):
        where = f"value {number}"
        if isinstance(value, dict):
            if not isinstance(value.get("key"), str | int) or isinstance(value["key"], bool):
                raise BriefRefused(f"{place}: {where}: a mapping needs a key, as in {{key: plain, text: plain paper}}")
            columns = {column: entry for column, entry in value.items() if column != "key"}
            if wrong := [name for name, entry in columns.items() if isinstance(entry, dict | list)]:
                raise BriefRefused(f"{place}: {where}: {wrong[0]} is no plain value")
            names: dict[str, str] = {}
            named = {_column_name(column, names, place): entry for column, entry in columns.items()}
            rows.append((where, key_of(str(value["key"])), {TEXT: str(value["key"]), **named}))
        else:
            rows.append((where, key_of(str(value)), {TEXT: str(value)}))
    check_keys(((key, where) for where, key, _ in rows), place)
    return rows


def _column_name(column: str, names: Mapping[str, str], place: str) -> str:
    """Return what templates call a column: letters, digits and `_`."""
    name = _NOT_OF_A_NAME.sub("_", column.strip()).strip("_")
    if not name:
        raise BriefRefused(f"{place}: the column {column!r:.60} has no letters in its name")
    same = next((other for other, known in names.items() if known == name), None)
    if same is not None:
        raise BriefRefused(f"{place}: the columns {same!r:.60} and {column!r:.60} are both called {name}; rename one")
    return name


def _chosen(axis: Axis, conditions: Iterable[str], place: str) -> Axis:
    """Return an axis with those values alone for which its own conditions hold."""
    kinds: dict[str, Kind] = {**axis.kinds, axis.name: "text"}
    for text in conditions:
        where = compile_where(text, kinds, f"{place}: where")
        kept = [
            number
            for number in range(axis.size)
            if where.holds({axis.name: axis.keys[number], **{name: axis.typed[name][number] for name in axis.typed}})
        ]
        axis = Axis(
            name=axis.name,
            keys=[axis.keys[number] for number in kept],
            columns={name: [values[number] for number in kept] for name, values in axis.columns.items()},
            typed={name: [values[number] for number in kept] for name, values in axis.typed.items()},
            kinds=axis.kinds,
        )
    return axis


def _with_default(axis: Axis, default: int) -> Axis:
    return Axis(
        name=axis.name,
        keys=axis.keys,
        columns=axis.columns,
        typed=axis.typed,
        kinds=axis.kinds,
        default=default,
    )


def _typed(values: list[Any]) -> tuple[Kind, list[Any]]:
    """Return what a column holds, and its values as such. Text that is a number everywhere counts as numbers."""
    there = [value for value in values if value is not None]
    if not there:
        return "null", values
    if all(isinstance(value, str) for value in there):
        return _typed_text(values, there)
    if all(isinstance(value, bool) for value in there):
        return "boolean", values
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
        return "number", values
    return "text", [None if value is None else str(value) for value in values]


def _typed_text(values: list[Any], there: list[str]) -> tuple[Kind, list[Any]]:
    if all(_NUMBER.fullmatch(value) for value in there):
        return "number", [None if value is None else float(value) for value in values]
    if all(_COMMA_NUMBER.fullmatch(value) for value in there):
        return "number", [None if value is None else float(value.replace(",", ".")) for value in values]
    if all(value.lower() in _TRUTH for value in there):
        return "boolean", [None if value is None else _TRUTH[value.lower()] for value in values]
    return "text", values

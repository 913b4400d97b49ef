"""The manifest's columns and the types each may have.

    Parquet schema --> check_schema() --> problems

A type is let in when it can hold what the column wants; whether each value does is told row by row (`values`).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import pyarrow as pa

from sdbatch.columns import MANIFEST, NAME_CHARS_MAX, column_meant
from sdbatch.errors import Problem

COLUMNS: Final[dict[str, pa.DataType]] = {name: column.type for name, column in MANIFEST.items()}
"""Every column a manifest may have beside `x_*`, with the type `manifest build` writes."""

COLUMNS_MAX = 200
"""Most columns of a table; a footer of thousands takes seconds and memory before any row is read."""
_PLAIN_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*")
"""Names of columns are printed, so they hold neither control characters nor marks that turn the direction of text."""


def check_schema(schema: pa.Schema, shard: str) -> list[Problem]:
    """Return the problems of a shard's columns: unknown names, types that cannot hold the value, no `id`."""
    if len(schema) > COLUMNS_MAX:
        return [_problem(shard, None, str(len(schema)), f"columns are over {COLUMNS_MAX}")]
    counts = Counter(schema.names)
    problems = [_problem(shard, name, None, "appears twice") for name in sorted(counts) if counts[name] > 1]
    if "id" not in counts:
        problems.append(_problem(shard, "id", None, "is missing; every row needs one"))
    for field in schema:
        if field.name in COLUMNS:
            if not _fits(field.type, COLUMNS[field.name]):
                message = f"is not of type {COLUMNS[field.name]}"
                problems.append(_problem(shard, field.name, str(field.type), message))
        elif not field.name.startswith("x_"):
            problems.append(_problem(shard, field.name, None, _unknown(field.name)))
        elif reason := own_name_problem(field.name):
            problems.append(_problem(shard, f"{field.name[:NAME_CHARS_MAX]!a}", None, reason))
        elif pa.types.is_nested(field.type):
            problems.append(_problem(shard, field.name, str(field.type), "is nested; x_ columns are flat"))
        elif meant := (field.metadata or {}).get(b"ARROW:extension:name"):  # of a type that Arrow does not know here
            message = f"means {meant.decode(errors='replace')}, which is not read here; write it as text"
            problems.append(_problem(shard, field.name, str(field.type), message))
        elif own_type(field.type) is None:
            message = "is of a type that x_ columns do not have; they hold text, numbers, booleans, dates or timestamps"
            problems.append(_problem(shard, field.name, str(field.type), message))
        elif not _knows_zone(field.type):
            problems.append(_problem(shard, field.name, str(field.type), "is of a time zone that is not known here"))
    return problems


def unknown_column(name: str) -> str:
    """Return what a table to build from is told of a column that manifests do not have."""
    return f"is not a column of a manifest{_near(name)}; rename it, drop it, or let it start with x_"


def own_name_problem(name: str) -> str | None:
    """Return what is wrong with the name of an x_* column, None when nothing is."""
    if len(name) > NAME_CHARS_MAX:
        return f"is a name of {len(name)} characters, over {NAME_CHARS_MAX}"
    return None if _PLAIN_NAME.fullmatch(name) else "is a name with control characters"


def own_fields(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the user's x_* columns, those that are refused apart, with the types in which they are carried."""
    kinds = {field.name: own_type(field.type) for field in schema if field.name.startswith("x_")}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def own_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which an x_* column is carried, None when x_* columns do not have it.

    Text of every kind is carried as string, timestamps in microseconds, a dictionary as what it stands for.
    """
    kind = plain_type(kind)
    if is_text(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    is_carried = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )
    return kind if is_carried else None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a dictionary's values, or of an extension of text; any other type as it is."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and is_text(kind.storage_type):
        return kind.storage_type
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are strings."""
    kind = plain_type(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists of any kind."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _unknown(name: str) -> str:
    if name.startswith("__index_level_"):
        return "is the index of a pandas table; write it with to_parquet(..., index=False)"
    return f"is not a known column{_near(name)} (your own start with x_)"


def _near(name: str) -> str:
    near = column_meant(name)
    return f"; did you mean {near}?" if near else ""


def _knows_zone(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        return True
    try:
        pa.scalar(0, pa.timestamp("us", kind.tz)).as_py()
    except (ValueError, LookupError, OSError, pa.ArrowException):
        return False
    return True


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a type can hold a column's values. Floats can: a column of nulls is often written as NaN."""
    kind = plain_type(kind)
    if pa.types.is_null(kind) or pa.types.is_floating(kind):
        return True
    if pa.types.is_string(wanted):
        return is_text(kind)
    if pa.types.is_list(wanted):
        return _fits_list(kind, wanted)
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _fits_list(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Check a list column; for `images` a plain string is a list of one."""
    if is_text(kind):
        return bool(pa.types.is_string(wanted.value_type))
    if not is_list(kind):
        return False
    inner = plain_type(kind.value_type)
    if not pa.types.is_struct(wanted.value_type):
        return not pa.types.is_nested(inner) and _fits(inner, wanted.value_type)
    if not pa.types.is_struct(inner):
        return bool(pa.types.is_null(inner))
    fields = [inner.field(number) for number in range(inner.num_fields)]
    return sorted(field.name for field in fields) == ["name", "weight"] and all(
        _fits(field.type, pa.string() if field.name == "name" else pa.float64()) for field in fields
    )


def _problem(shard: str, column: str | None, value: str | None, message: str) -> Problem:
    return Problem(shard=shard, row=None, column=column, value=value, message=message)
